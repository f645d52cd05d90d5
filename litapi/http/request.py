"""One HTTP request: headers, query, and a body read under a limit.

The routes are plain ASGI: on a cache hit a framework costs more than the look-up. `Incoming` has
what they need of a request, `Connection` what the guarded connection does for one beyond ASGI.
"""

from __future__ import annotations

import asyncio
import io
import math
import time
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, MutableMapping, Sequence
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qsl

from litapi import errors
from litapi.http.large import LongString
from litapi.keys import Key
from litapi.transport.client import ANYONE, Asker, Client

CONNECTION = "siglit.connection"  # the extension of the ASGI scope that has a `Connection`
DIGITS = 19  # of a content length that is beyond any limit
ENCODED = b"content-encoding"
PRIORITY, PATIENCE = b"x-priority", b"x-timeout-ms"
CLASSES = (b"interactive", b"bulk")
STEP = 1 << 20  # bytes that come out at once: some milliseconds
MOST_MEMBERS = 1000  # of a gzip body: each costs time, even an empty one
GZIP, ZLIB, RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
NOT_AS_SAID = "The body is not what its Content-Encoding says, or it was cut short."
CODINGS = {"gzip": GZIP, "x-gzip": GZIP, "deflate": ZLIB}
LISTS = frozenset({b"accept", b"cache-control"})  # headers of which all lines count

T = TypeVar("T")
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class ClientGone(Exception):
    """The client hung up; nobody is left to answer."""


class Connection:
    """What the server does for a request beyond ASGI. As it stands here: nothing.

    Each method takes the request's scope, and declines where that is not the scope of the
    connection's current request: another one is pipelined behind it, or a middleware copied it.
    """

    def take_body(self, scope: Scope) -> bytes | None:
        """The whole body, once. None: ask `receive`."""

    def watch(self, scope: Scope) -> asyncio.Future[type[Exception]] | None:
        """Done, with `ClientGone`, once the client has hung up. None: ask `receive`."""

    def hold(self, size: int) -> bool:
        """Count `size` bytes more as held for the running request. False: refuse it."""
        del size
        return True

    def send_whole(self, scope: Scope, status: int, head: bytes, body: bytes) -> bool:
        """Send an answer in one write. False: nothing was sent, use `send`. `head` is header lines
        with their line ends, a content-length among them."""
        del scope, status, head, body
        return False


_PLAIN = Connection()
_NONE: dict[str, Any] = {}


class Account(Protocol):
    """What counts a request against the share and the limits of its client."""

    def client(self, incoming: Incoming) -> Client:
        """Whose share it is of."""

    def charge(self, incoming: Incoming, items: Sequence[object], formats: tuple[str, ...]) -> None:
        """Count its items. Raises RateLimited where the key has used up what it may have."""


class Incoming:
    """A request: `method`, `path`, headers by lower-case bytes, the body on demand. A trailing
    slash of the path is dropped, and a compressed body is read decompressed."""

    __slots__ = (
        "_body", "_receive", "_seen", "access", "bulk", "connection", "deadline", "headers", "key",
        "large", "limit", "long", "longest", "method", "path", "scope", "whole",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, limit: int) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        path: str = scope["path"]
        self.path = path[:-1] if path[-1:] == "/" and len(path) > 1 else path
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        if len(self.headers) != len(scope["headers"]):  # one of them has several lines
            self.headers |= _joined(scope["headers"])
        self.limit = limit
        self.whole = False
        self.large = 0  # bytes of a body that was parsed in turns
        self.long: Sequence[LongString] = ()  # its strings that stand as tokens in the content
        self.longest = 0  # members of its longest list, where that was cut
        self.access: Account | None = None  # that has let it in
        self.key: Key | None = None  # by which it was let in
        self.bulk = False
        self.deadline = math.inf  # by time.monotonic, of the client's own patience
        self._body: bytes | None = None
        self._seen = 0
        self._receive = receive
        self.connection: Connection = scope.get("extensions", _NONE).get(CONNECTION, _PLAIN)

    def header(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")

    @property
    def media_type(self) -> str:
        return self.header(b"content-type").partition(";")[0].strip().lower()

    @property
    def query(self) -> dict[str, str]:
        """Query parameters; a name that stands twice keeps its last value."""
        try:
            text = self.scope.get("query_string", b"").decode("ascii")
            return dict(parse_qsl(text, keep_blank_values=True))
        except (UnicodeDecodeError, ValueError):
            raise errors.RequestInvalid("The query string could not be read.") from None

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body piece by piece.

        Raises:
            BodyTooLarge: as soon as the announced or the received bytes exceed the limit.
            MediaTypeUnsupported: it is compressed in a way that is not read here.
            RequestInvalid: it is not compressed as it says.
            Overloaded: this process cannot hold it.
            ClientGone: the client hung up.
        """
        announced = self.headers.get(b"content-length", b"").lstrip(b"0")
        if announced.isdigit() and int(announced[:DIGITS]) > self.limit:
            raise errors.BodyTooLarge
        encoding = self.header(ENCODED)
        if encoding.lower() not in ("", "identity"):
            async for piece in self._inflated(Inflate(encoding)):
                yield piece
        while not self.whole:
            yield await self._piece()

    async def _inflated(self, inflate: Inflate) -> AsyncGenerator[bytes, None]:
        size = 0
        try:
            while not self.whole:
                for piece in inflate.feed(await self._piece()):
                    size += len(piece)
                    if size > self.limit:
                        raise errors.BodyTooLarge
                    if not self.connection.hold(len(piece)):
                        raise errors.Overloaded
                    yield piece
                    await asyncio.sleep(0)  # a few bytes may become many steps
            inflate.end()
        except zlib.error:
            raise errors.RequestInvalid(NOT_AS_SAID) from None

    def at_once(self) -> bytes | None:
        """The whole body where it has come and the server below can hand it over; else None. Raises
        BodyTooLarge: as `chunks`."""
        if self._body is None and not self._seen and ENCODED not in self.headers:
            body = self.connection.take_body(self.scope)
            if body is not None:
                if len(body) > self.limit:
                    raise errors.BodyTooLarge
                self.whole, self._body = True, body
                return body
        return self._body

    async def body(self) -> bytes:
        """The whole body, as often as it is wanted; raises as `chunks` does."""
        if self.at_once() is None:
            pieces = self.chunks()
            whole = io.BytesIO(await anext(pieces, b""))  # takes and gives its bytes uncopied
            whole.seek(0, io.SEEK_END)
            async for piece in pieces:
                whole.write(piece)
            self._body = whole.getvalue()
        return self._body or b""

    def forget(self) -> None:
        self._body = b""

    def wish(self) -> None:
        """Read the class and the patience that the client asks for. Raises RequestInvalid:
        `X-Priority` or `X-Timeout-Ms` says something else."""
        priority, patience = self.headers.get(PRIORITY), self.headers.get(PATIENCE)
        if priority is not None:
            if priority.lower() not in CLASSES:
                sentence = "X-Priority: is interactive or bulk"
                raise errors.RequestInvalid(sentence, param="X-Priority")
            self.bulk = self.bulk or priority.lower() == b"bulk"  # a bulk key stays bulk
        if patience is not None:
            if not 0 < len(patience) <= 7 or not patience.isdigit() or not int(patience):
                sentence = "X-Timeout-Ms: is a whole number of milliseconds, 1 to 9999999"
                raise errors.RequestInvalid(sentence, param="X-Timeout-Ms")
            self.deadline = time.monotonic() + int(patience) / 1e3

    def asker(self) -> Asker:
        client = ANYONE.client if self.access is None else self.access.client(self)
        return Asker(client, self.bulk, self.deadline)

    def gone(self) -> asyncio.Future[type[Exception]]:
        """Done once the client has hung up, or its own time is over; its caller's to cancel. Only
        for a whole body."""
        left = self.connection.watch(self.scope)
        if left is None:
            left = asyncio.ensure_future(self._gone())
        if self.deadline == math.inf:
            return left
        return asyncio.ensure_future(_or_late(left, self.deadline))

    async def _gone(self) -> type[Exception]:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        return ClientGone

    async def unless_gone(self, work: Awaitable[T]) -> T:
        """What `work` gives; once the client has hung up it is cancelled. The body must be whole.
        Raises ClientGone: the client hung up first."""
        left: asyncio.Future[Any] = self.gone()
        working = asyncio.ensure_future(work)
        try:
            await asyncio.wait({working, left}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise left.result()
            return working.result()
        finally:
            working.cancel()
            left.cancel()

    async def _piece(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece: bytes = message.get("body", b"")
        self._seen += len(piece)
        if self._seen > self.limit:
            raise errors.BodyTooLarge
        self.whole = not message.get("more_body", False)
        return piece


class Inflate:
    """Decompresses one body piece by piece: gzip or deflate (RFC 9110, 8.4). Raises zlib.error: it
    is not what the header says; and MediaTypeUnsupported: for another coding, or several."""

    def __init__(self, header: str) -> None:
        codings = [one.strip().lower() for one in header.split(",")]
        codings = [one for one in codings if one not in ("", "identity")]
        if len(codings) != 1 or codings[0] not in CODINGS:
            raise errors.MediaTypeUnsupported(
                "Content-Encoding: bodies are read plain, or compressed once with gzip or deflate."
            )
        self._wbits = CODINGS[codings[0]]
        self._inner = zlib.decompressobj(self._wbits)
        self._first = b""  # at least two bytes are needed to tell the two forms of deflate
        self._members = 0

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """What comes out of another piece, at most `STEP` bytes at once."""
        if not self._members:
            piece = self._first = self._first + piece
            if len(piece) < 2:
                return
            self._members = 1
            plain = piece[0] & 15 == zlib.DEFLATED and int.from_bytes(piece[:2], "big") % 31 == 0
            if self._wbits == ZLIB and not plain:  # many clients send deflate without zlib's header
                self._inner = zlib.decompressobj(RAW)
        out = b""
        while piece or (len(out) == STEP and not self._inner.eof):  # more of it is inside
            if self._inner.eof:
                self._next_member()
            out = self._inner.decompress(piece, STEP)
            piece = self._inner.unconsumed_tail or self._inner.unused_data
            yield out

    def end(self) -> None:
        if self._first and not self._inner.eof:
            raise zlib.error("the body was cut short")

    def _next_member(self) -> None:
        self._members += 1
        if self._wbits == ZLIB or self._members > MOST_MEMBERS:
            raise zlib.error("more follows")
        self._inner = zlib.decompressobj(GZIP)


async def _or_late(left: asyncio.Future[type[Exception]], deadline: float) -> type[Exception]:
    """What `left` says, or `DeadlineExceeded` when the time is over; `left` ends with it."""
    try:
        return await asyncio.wait_for(left, max(0.0, deadline - time.monotonic()))
    except TimeoutError:
        return errors.DeadlineExceeded


def _joined(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The lists whose lines stand apart, each in one line."""
    lines: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in LISTS:
            lines[name] = lines[name] + b", " + value if name in lines else value
    return lines
