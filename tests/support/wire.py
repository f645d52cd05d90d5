"""A request as it comes over the wire: in pieces, or half of it only."""

import asyncio
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from litapi.http.request import Incoming

LIMIT = 1 << 20
BOUNDARY = "seven"
MULTIPART = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
Headers = Mapping[str, str] | Sequence[tuple[bytes, bytes]]  # by name, or as the lines they are


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
    headers: Headers | None = None,
    *,
    method: str = "POST",
    path: str = "/",
    query: bytes = b"",
    limit: int = LIMIT,
    client: str = "1.2.3.4",
) -> Incoming:
    """A request as uvicorn hands it over: header names in lower case, everything as bytes."""
    raw = headers or []
    if isinstance(raw, Mapping):
        raw = [(name.lower().encode(), text.encode("latin-1")) for name, text in raw.items()]
    scope = {"method": method, "path": path, "headers": list(raw), "query_string": query}
    scope["client"] = (client, 5)
    return Incoming(scope, (wire if isinstance(wire, Wire) else Wire([wire])).receive, limit)


def body_of(incoming: Incoming) -> bytes:
    """Read the whole body."""
    return asyncio.run(incoming.body())


def form_data(*parts: tuple[str, bytes, str | None]) -> bytes:
    """A multipart body of (name, content, file name or None for a plain field)."""
    body = b""
    for name, content, file in parts:
        disposition = f'form-data; name="{name}"' + (f'; filename="{file}"' if file else "")
        body += f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n".encode()
        body += content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()
