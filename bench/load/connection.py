"""HTTP/1.1 with as little work for each request as can be: one connection, one request at a time.

A client library costs several times what the measured server spends on a cache hit; httptools'
parser does not. Whatever is no whole answer is a `Fault` with a name that the table of errors
counts.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpResponseParser

END: Final = b"\r\n\r\n"
LONGEST_HEAD = 64 * 1024
STALE = 1.0  # seconds; gunicorn hangs up on an idle client after 2, uvicorn after 5


class Fault(Exception):
    """Why there is no answer: refused, unreachable, closed, half-answer, malformed, timeout."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server listens, and the path all routes begin with."""

    host: str
    port: int
    tls: bool = False
    prefix: str = ""

    @classmethod
    def of(cls, url: str) -> Address:
        """From a URL.

        Raises:
            ValueError: it is no URL of an HTTP server.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not a URL of a server: {url}")
        tls = parts.scheme == "https"
        return cls(parts.hostname, parts.port or (443 if tls else 80), tls, parts.path.rstrip("/"))


@dataclass(slots=True)
class Reply:
    """A whole answer, with the monotonic times of its first and its last byte."""

    status: int
    head: bytes
    body: bytes
    first_byte: float
    done: float


class Connection(asyncio.Protocol):
    """A connection to the server; `ask` sends a request and waits for its whole answer."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = HttpResponseParser(self)
        self._waiter: asyncio.Future[Reply] | None = None
        self._first_byte = 0.0
        self._reset()
        self.used = 0.0
        self.open = False

    @classmethod
    async def to(cls, address: Address, timeout: float) -> Connection:
        """Connect.

        Raises:
            Fault: nobody listens, or nobody answers in time.
        """
        context = ssl.create_default_context() if address.tls else None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                _, made = await loop.create_connection(cls, address.host, address.port, ssl=context)
        except OSError as error:
            names = {TimeoutError: "timeout", ConnectionRefusedError: "refused"}
            raise Fault(names.get(type(error), "unreachable")) from None
        return made

    async def ask(self, request: bytes, timeout: float) -> Reply:
        """Send a request, await its answer.

        Raises:
            Fault: there is none, or not a whole one.
        """
        self._reset()
        self._waiter = self._loop.create_future()
        timer = self._loop.call_later(timeout, self._fail, "timeout")
        try:
            if not self.open:
                raise Fault("closed")
            self._transport.write(request)
            return await self._waiter
        except asyncio.CancelledError:
            self.close()  # the answer may still come: nobody else's to read
            raise
        finally:
            timer.cancel()
            self._waiter = None

    def close(self) -> None:
        self.open = False
        self._transport.abort()

    # -- what the transport calls --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.open = True
        self.used = time.monotonic()

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:  # nobody asked: not a server to go on with
            self.close()
            return
        self._first_byte = self._first_byte or time.monotonic()
        if not self._head:
            self._raw += data
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            self._fail("malformed")
        if not self._head and len(self._raw) > LONGEST_HEAD:
            self._fail("malformed")

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side hung up: the end of the body, of half a body, or before any."""
        self.open = False
        measured = header(self._head, b"content-length") or header(self._head, b"transfer-encoding")
        if self._head and not measured and exc is None:
            self._finish()
        else:
            self._fail("half-answer" if self._raw else "closed")

    # -- what the parser calls -----------------------------------------------------------------

    def on_headers_complete(self) -> None:
        end = self._raw.find(END)
        if self._parser.get_status_code() < 200:  # 100 Continue and its like
            del self._raw[: end + 4]
        else:
            self._head = bytes(self._raw[: end + 2]).lower()

    def on_body(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def on_message_complete(self) -> None:
        if self._head:
            self._finish()
            if not self._parser.should_keep_alive():
                self.close()

    def _reset(self) -> None:
        self._raw = bytearray()  # up to the end of the head at least
        self._head = b""
        self._pieces: list[bytes] = []
        self._first_byte = 0.0

    def _finish(self) -> None:
        self.used = time.monotonic()
        if self._waiter is not None and not self._waiter.done():
            status, body = self._parser.get_status_code(), b"".join(self._pieces)
            self._waiter.set_result(Reply(status, self._head, body, self._first_byte, self.used))

    def _fail(self, name: str) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(Fault(name))
        self.close()


class Pool:
    """At most `width` connections; the one used last is used next.

    A connection that lay idle is replaced, since the server may be hanging up on it just now: a
    request that fails is then the server's fault, never the pool's.
    """

    def __init__(self, address: Address, width: int) -> None:
        self._address = address
        self._free = asyncio.Semaphore(width)
        self._idle: deque[Connection] = deque()
        self.opened = 0

    async def fill(self, many: int, timeout: float) -> None:
        """Open some before the clock starts; those that fail are tried again when needed."""
        made = await asyncio.gather(
            *(self._connect(timeout) for _ in range(many)), return_exceptions=True
        )
        self._idle.extend(one for one in made if isinstance(one, Connection))

    async def take(self, timeout: float) -> Connection:
        """A connection that nobody uses.

        Raises:
            Fault: none could be had; nothing is to be given back then.
        """
        await self._free.acquire()
        while self._idle:
            connection = self._idle.pop()
            if connection.open and time.monotonic() - connection.used < STALE:
                return connection
            connection.close()
        try:
            return await self._connect(timeout)
        except BaseException:
            self._free.release()
            raise

    async def ask(self, request: bytes, timeout: float) -> Reply:
        """The answer to a request over one of them. Raises Fault where there is none."""
        connection = await self.take(timeout)
        try:
            return await connection.ask(request, timeout)
        finally:
            self.give(connection)

    def give(self, connection: Connection) -> None:
        if connection.open:
            self._idle.append(connection)
        self._free.release()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    async def _connect(self, timeout: float) -> Connection:
        made = await Connection.to(self._address, timeout)
        self.opened += 1
        return made


async def ask_once(address: Address, request: bytes, timeout: float) -> Reply:
    """The answer to a request over a connection of its own. Raises Fault where there is none."""
    connection = await Connection.to(address, timeout)
    try:
        return await connection.ask(request, timeout)
    finally:
        connection.close()


def head_of(path: str, length: int, headers: Mapping[str, str], method: str = "POST") -> bytes:
    """The head of a request whose body has so many bytes."""
    lines = [f"{method} {path} HTTP/1.1", "host: siglit", f"content-length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")


def header(head: bytes, name: bytes) -> bytes:
    """The value of a header in a lower-cased head, or nothing."""
    at = head.find(b"\r\n" + name + b":")
    if at < 0:
        return b""
    start = at + len(name) + 3
    return head[start : head.index(b"\r\n", start)].strip()
