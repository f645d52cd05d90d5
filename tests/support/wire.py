"""A request as it comes over the wire: in pieces, or half of it only."""

import asyncio
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from litapi.http.request import Incoming

LIMIT = 1 << 20


class Wire:
    """The client's side of a connection: the pieces it sends, and how many were taken from it."""

    def __init__(self, pieces: Sequence[bytes], gone_after: int | None = None) -> None:
        self._pieces = list(pieces)
        self._gone_after = gone_after
        self.taken = 0

    async def receive(self) -> MutableMapping[str, Any]:
        if self.taken == self._gone_after:
            return {"type": "http.disconnect"}
        if self.taken == len(self._pieces):
            await asyncio.Event().wait()  # nothing comes any more
        piece = self._pieces[self.taken]
        self.taken += 1
        more = self.taken < len(self._pieces)
        return {"type": "http.request", "body": piece, "more_body": more}


def arrive(
    wire: Wire | bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "POST",
    path: str = "/",
    query: bytes = b"",
    limit: int = LIMIT,
) -> Incoming:
    """A request as uvicorn hands it over: header names in lower case, everything as bytes."""
    raw = [
        (name.lower().encode(), text.encode("latin-1")) for name, text in (headers or {}).items()
    ]
    scope = {"method": method, "path": path, "headers": raw, "query_string": query}
    return Incoming(scope, (wire if isinstance(wire, Wire) else Wire([wire])).receive, limit)


def body_of(incoming: Incoming) -> bytes:
    """Read the whole body."""
    return asyncio.run(incoming.body())
