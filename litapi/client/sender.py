"""One request, sent until it is answered: an embedding may be asked for again without harm.

Lost connections and answers that say "later" (408, 429, 502, 503, 504) are tried again, after
`Retry-After` where it is given and after a growing pause where it is not, until a deadline. A
server that never answered is not waited for: its address is likely wrong.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from typing import Any

import httpx

from litapi.client.refusals import ClientError, RequestRefused, ServerLost

LATER = frozenset({408, 429, 502, 503, 504})
LOST = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError, httpx.ProxyError)
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0


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
            pause, why = pause_before(attempt), None
            try:
                answer = await self._http.request(method, path, **body)
            except LOST as error:
                why = self._lost(error)
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

    def _lost(self, error: Exception) -> ClientError:
        """Raises it at once where nothing ever answered."""
        why = ServerLost(f"no server answers at {self._http.base_url}: {type(error).__name__}")
        if isinstance(error, httpx.ConnectError) and not self._met:
            raise why from None
        return why


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
