"""An answer of the server → vectors and errors in their places.

Raw rows where every item is good, JSON with base64 where one may be refused: a refused item of a
raw answer refuses the request, which is cheap to ask again for texts and dear for pictures.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np

from litapi.client.embedded import Embedded
from litapi.client.refusals import ItemRefused, SpaceChanged
from litapi.client.sender import refusal_of

OCTETS = "application/octet-stream"
UNKNOWN = frozenset({"digest_unknown", "digest_disabled"})  # the bytes are wanted
PASSING = frozenset({"worker_lost", "deadline_exceeded"})  # may go well another time
BY_ITSELF = frozenset({413, 415, 422})  # of a request with one item: that item's


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
        if why.code in UNKNOWN or why.code in PASSING:
            still_open[place] = why
        else:
            into.errors[place] = why
    return still_open
