"""Requests, sent until they are answered, and answers → vectors and errors in their places.

An embedding may be asked for again without harm. Lost connections and answers that say "later"
(408, 429, 502, 503, 504) are tried again, after `Retry-After` where it is given and after a growing
pause where it is not, until a deadline. A server that never answered is not waited for: its address
is likely wrong.

An answer is raw rows where every item is good, JSON with base64 where one may be refused: a refused
item of a raw answer refuses the request, which is cheap to ask again for texts and dear for
pictures.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import random
import time
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np

from litapi.client.embedded import (
    ClientError,
    Embedded,
    ItemRefused,
    RequestRefused,
    ServerLost,
    SpaceChanged,
)

LATER = frozenset({408, 429, 502, 503, 504})
LOST = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError, httpx.ProxyError)
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
OCTETS = "application/octet-stream"
OPEN = frozenset({
    *("digest_unknown", "digest_disabled"),  # the bytes are wanted
    *("worker_lost", "deadline_exceeded"),  # may go well another time
})  # fmt: skip
BY_ITSELF = frozenset({413, 415, 422})  # of a request with one item: that item's


class Sender:
    """Sends requests over one pool of connections."""

    def __init__(self, http: httpx.AsyncClient, give_up_after: float) -> None:
        self._http = http
        self._give_up_after = give_up_after
        self._met = False

    def deadline(self) -> float:
        return time.monotonic() + self._give_up_after

    async def send(self, method: str, path: str, until: float, **body: Any) -> httpx.Response:
        """An answer that is not "later".

        Raises:
            ServerLost: no connection held until the deadline.
            RequestRefused: the server said "later" until the deadline.
        """
        for attempt in itertools.count():
            pause = pause_before(attempt)
            try:
                answer = await self._http.request(method, path, **body)
            except LOST as error:
                lost = f"no server answers at {self._http.base_url}: {type(error).__name__}"
                why: ClientError = ServerLost(lost)
                if isinstance(error, httpx.ConnectError) and not self._met:
                    raise why from None
            except httpx.HTTPError as error:  # ours, such as a URL that is none
                sentence = f"{self._http.base_url}: {type(error).__name__}: {error}"
                raise ServerLost(sentence) from None
            else:
                self._met = True
                if answer.status_code not in LATER:
                    return answer
                pause, why = max(pause, _asked_pause(answer)), refusal_of(answer)
            if time.monotonic() + pause > until:
                raise why
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")


def pause_before(attempt: int) -> float:
    """Seconds, growing and spread, so that many clients do not come back together."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempt, 16)) * random.uniform(0.5, 1.5)


def _asked_pause(answer: httpx.Response) -> float:
    """`Retry-After` and a little more; 0 without one, or where it is a date."""
    try:
        return float(answer.headers.get("retry-after", "0")) * random.uniform(1.0, 1.25)
    except ValueError:
        return 0.0


def refusal_of(answer: httpx.Response) -> RequestRefused:
    """The server's own words, or the status of a proxy's page."""
    try:
        error = answer.json()["error"]
        return RequestRefused(answer.status_code, error["code"], error["message"])
    except (ValueError, KeyError, TypeError):
        return RequestRefused(answer.status_code, "unknown", f"HTTP {answer.status_code}")


def take(answer: httpx.Response, places: Sequence[int], into: Embedded) -> dict[int, ItemRefused]:
    """Fill in what is said about the items at `places`; those that are still open, with why.

    Raises:
        RequestRefused: the whole request is refused and no item is to blame.
        SpaceChanged: the vectors are of another space than those of `into`.
    """
    if answer.status_code >= 400:
        return _refused(answer, places, into)
    space = answer.headers.get("x-embedding-space")
    if space and into.space and space != into.space:
        raise SpaceChanged(into.space, space)
    if answer.headers["content-type"] == OCTETS:
        shape = tuple(map(int, answer.headers["x-embedding-shape"].split(",")))
        into.vectors[places] = np.frombuffer(answer.content, "<f4").reshape(shape)
        states = answer.headers["x-cache"].split(",")
        into.cached[places] = [state.startswith("hit") for state in states]
        return {}
    content: dict[str, Any] = answer.json()
    single = "embedding" in content
    rows = [content["embedding"]] if single else content["embeddings"]
    cached = [content["cached"]] if single else content["cached"]
    for place, row, known in zip(places, rows, cached, strict=True):
        if row is not None:
            into.vectors[place] = np.frombuffer(base64.b64decode(row), "<f4")
            into.cached[place] = known
    return _sorted_out(content.get("errors") or [], places, into)


def _refused(
    answer: httpx.Response, places: Sequence[int], into: Embedded
) -> dict[int, ItemRefused]:
    refusal = refusal_of(answer)
    if answer.headers.get("content-type", "").startswith("application/json"):
        items = answer.json()["error"].get("items")
        if items:
            good = set(range(len(places))) - {one["index"] for one in items}
            again = {places[i]: ItemRefused("again", "a neighbour was refused") for i in good}
            return again | _sorted_out(items, places, into)
    if len(places) == 1 and refusal.status in BY_ITSELF:
        into.errors[places[0]] = ItemRefused(refusal.code, str(refusal))
        return {}
    raise refusal


def _sorted_out(
    faults: list[dict[str, Any]], places: Sequence[int], into: Embedded
) -> dict[int, ItemRefused]:
    still_open = {}
    for fault in faults:
        place, why = places[fault["index"]], ItemRefused(fault["code"], fault["message"])
        if why.code in OPEN:
            still_open[place] = why
        else:
            into.errors[place] = why
    return still_open
