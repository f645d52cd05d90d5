"""uvicorn's connection with limits: one that wastes the server's time is answered and closed.

    connect ──5 s──► head ──32 KiB──► body ──5 s of silence, or a drip──► answer ──linger──► close
               408           431                       408

No request has a timer of its own, not even uvicorn's keep-alive timer. One sweep per process, twice
a second, compares what each connection waits for with the sweep before. A wait that would exceed
its limit before the next sweep ends with this one. An answer sent before the body was read is
followed by a lingering close: closing a socket with unread bytes resets it, and the client may lose
the answer.

Backpressure: while a pipelined request waits for its turn, or the client does not read its answers,
its socket is not read. Bytes received by then are parsed in small pieces when it is their turn. An
offered upgrade is ignored (RFC 9110, 7.8): the parser stops there, so another parser continues from
a head without the offer.

Whole answers are written at the end of a turn of the event loop, for all connections together. A
write wakes the process that waits for it, which costs a third of a cache hit; a client or balancer
that still handles the first answer of a turn is not woken again for the others.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast
from weakref import WeakKeyDictionary

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import Server, ServerState

from litapi import errors
from litapi.allocator import Trim
from litapi.http.answer import Answer
from litapi.http.held import SMALL, TRIM_FROM, Answers, Bodies
from litapi.http.request import CONNECTION, ClientGone, Connection, Scope
from litapi.metrics import connection_refused

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

log = logging.getLogger("siglit.guard")

SLICE = 50  # connections looked at before others get a turn
ACCEPTS = 16  # connections that one HTTP process accepts in a turn
AT_ONCE = 1 << 10  # bytes that are parsed in one go; all pipelined requests in them are begun
PIECE = 256  # bytes of one piece where more than that came ...
BODY_PIECE = 8 << 10  # ... and where a body is awaited
NOTHING = memoryview(b"")


@dataclass(frozen=True, slots=True)
class Patience:
    """Limits of time and bytes for a connection."""

    head_seconds: float = 5.0  # from connecting, or from the first byte, to the end of the headers
    head_bytes: int = 32 << 10  # request line and headers, and a piece; trailers, chunk framing
    stall_seconds: float = 5.0  # without a byte while the body is awaited
    drip_bytes: int = 1024  # least bytes a second of a body ...
    drip_seconds: float = 20.0  # ... on average over this time
    unsent_seconds: float = 30.0  # while a client reads nothing of its answer
    linger_seconds: float = 2.0  # reading on after an early answer, at most this long ...
    linger_bytes: int = 64 << 20  # ... and this much
    sweep_seconds: float = 0.5  # between two sweeps
    bodies_bytes: int = 128 << 20  # of all large bodies that a process holds
    answers_bytes: int = 64 << 20  # of all large answers that clients have not read


class GuardedProtocol(HttpToolsProtocol, Connection):
    """uvicorn's httptools protocol with limits; give it, or a `guarded` one, to uvicorn as `http=`.

    A client that exceeds a limit gets an error of the shared form: 408 `request_timeout`,
    429 `overloaded`, 431 `headers_too_large`, 400 `invalid_http`, or 503 `not_ready` at shutdown.
    """

    patience: ClassVar[Patience] = Patience()

    # -- uvicorn's callbacks -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wraps the transport, so that a close by uvicorn can linger."""
        self._inner = cast("asyncio.Transport", transport)
        self._shared = shared = _Shared.of(self.server_state, self.loop, self.patience)
        self._wrapper = _TransportWrapper(self._inner, shared, self._lingers)
        self._pending = NOTHING  # bytes received and not parsed
        self._parsed = 0  # number of bytes parsed or discarded
        self._head_end = 0  # `_parsed` when the last head was whole
        self._next_waits = False  # the next pipelined request waits until answers are read
        self._counted = False  # whether any of its bodies was large enough to be counted
        self._running: RequestResponseCycle | None = None  # the request that is being answered
        self._body_rate = 0.0  # bytes a second of a counted body
        self._requests = 0  # number of requests begun
        self._progress = 0  # `_parsed` at the last body byte or end of a request
        self._idle_at = -1  # `_parsed` when the last answer was complete and no request pending
        self._keep_alive = True  # whether the client wants it
        self._error: errors.ServiceError | None = None  # to be sent after the answers before it
        self._discarding = False  # received bytes are dropped
        self._clocks = _Clocks(self.loop.time())
        self._disconnects: list[asyncio.Future[type[Exception]]] = []
        self._extensions: Any = {CONNECTION: self}
        super().connection_made(cast("asyncio.Transport", self._wrapper))
        self.flow = _Flow(self.transport, self.pipeline)
        shared.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drops references to this object, which would otherwise wait for the garbage collector."""
        self._wrapper.detach()
        self._extensions = {}
        self._pending = NOTHING
        if self._counted:
            self._shared.bodies.forget(self)
            for waiting, _ in self.pipeline:
                self._shared.bodies.drop(id(waiting.scope))
        super().connection_lost(exc)
        self._running = None
        self.scope = self.cycle = None  # type: ignore[assignment]  # as before the first request
        self.pipeline.clear()
        for left in self._disconnects:
            if not left.done():
                left.set_result(ClientGone)
        self._disconnects.clear()

    def data_received(self, data: bytes) -> None:
        """Parses what came; in pieces where it may contain many requests."""
        if self._discarding:
            self._parsed += len(data)
            if self._wrapper.closed and self._parsed > self._linger_bytes:
                self._wrapper.shut()
        elif len(data) > AT_ONCE or self._pending:
            self._pending = memoryview(bytes(self._pending) + data if self._pending else data)
            self._read_on()
        else:
            parsed = self._parse(data)
            if parsed < len(data):
                self._pending = memoryview(data)[parsed:]
                self._read_on()

    def _read_on(self) -> None:
        flow = self.flow
        while self._pending and not (self.pipeline or flow.write_paused or self._discarding):
            awaited = self._in_flight and self.cycle.more_body
            parsed = self._parse(self._pending[: BODY_PIECE if awaited else PIECE])
            self._pending = self._pending[parsed:]
        if self._discarding:
            self._pending = NOTHING
        if self._pending:
            flow.pause_reading()
        elif self.cycle is None or len(self.cycle.body) <= HIGH_WATER_LIMIT:
            flow.resume_reading()  # else `receive` does, when the application takes the body

    def _parse(self, data: bytes | memoryview) -> int:
        """Feed the parser; returns how many of the bytes it parsed. Bounds what is neither a body
        nor a whole request: headers, trailers, chunk framing."""
        parsed = len(data)
        self._parsed += parsed
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            self._parsed -= parsed - stopped.args[0]
            parsed = stopped.args[0]
            self._ignore_upgrade()
        except httptools.HttpParserError:
            self._refuse(errors.HttpInvalid())
        if self._parsed - self._progress > self.patience.head_bytes:
            self._refuse(errors.HeadersTooLarge())
        return parsed

    def _should_upgrade(self) -> bool:
        """Keeps uvicorn from beginning the request; `_ignore_upgrade` begins it instead."""
        return True

    def _ignore_upgrade(self) -> None:
        """Parse the request and its body again, without the offer."""
        if self.parser.get_method() == b"CONNECT":
            self._refuse(errors.HttpInvalid())  # the tunnel's bytes follow, and none is opened
            return
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                options = [one for one in value.split(b",") if one.strip().lower() != b"upgrade"]
                value = b",".join(options)
            if name != b"upgrade":
                lines.append(b"%b: %b" % (name, value))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        head = b"\r\n".join([*lines, b"", b""])
        self._parsed -= len(head)  # the offer's own bytes were counted
        self._parse(head)

    def on_headers_complete(self) -> None:
        """Until the body is complete, an answer closes the connection."""
        super().on_headers_complete()
        if self.cycle is not None and self.cycle.scope is self.scope:  # else it is an upgrade
            self._requests += 1
            self._head_end = self._parsed
            self._keep_alive = self.cycle.keep_alive
            self.cycle.keep_alive = False
            # Bound methods of the cycle would be a reference cycle, left to the garbage collector.
            self.cycle.scope["extensions"] = self._extensions

    def on_body(self, body: bytes) -> None:
        self._progress = self._parsed
        super().on_body(body)
        large = self._parsed - self._head_end > SMALL
        if large and not self._discarding and not self.cycle.response_complete:
            self._counted = True
            if not self._shared.bodies.add(id(self.cycle.scope), len(body)):
                self._refuse_body()

    def on_message_complete(self) -> None:
        """The body is complete: keep-alive is possible, unless an answer has announced a close."""
        self._progress = self._parsed
        super().on_message_complete()
        cycle = self.cycle
        if cycle is not None and cycle.scope is self.scope and not cycle.response_started:
            cycle.keep_alive = self._keep_alive

    def on_response_complete(self) -> None:
        """As uvicorn's without its keep-alive timer, which costs a tenth of a cache hit. The next
        pipelined request begins once the client has read enough of its answers."""
        self.server_state.total_requests += 1
        self._disconnects.clear()
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._wrapper.flush()
            self._next_waits = True
            self._go_on()
        else:
            self.flow.resume_reading()
            self._idle_at = self._parsed  # from here on the sweep waits for another request

    def _go_on(self) -> None:
        if self._next_waits and not self.flow.write_paused:
            self._next_waits = False
            self._start_asgi_task(*self.pipeline.pop())
        self._read_on()

    def pause_writing(self) -> None:
        """Backpressure: a client that does not read its answers is not read."""
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """The client reads its answers again: its next request begins."""
        super().resume_writing()
        if not self._inner.is_closing():
            self._go_on()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """As uvicorn's, but `_run` does what a callback of the task would do."""
        self._running = cycle
        self._begun = self.loop.create_task(self._run(cycle, app))
        self.tasks.add(self._begun)

    async def _run(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        task = self._begun  # kept, for the next request replaces it
        try:
            await cycle.run_asgi(app)
        finally:
            self.tasks.discard(task)
            if self._counted:
                self._shared.bodies.drop(id(cycle.scope))

    # -- what a request may ask for beyond ASGI ------------------------------------------------

    def take_body(self, scope: Scope) -> bytes | None:
        cycle = self.cycle
        if cycle is None or cycle.scope is not scope or cycle.more_body or cycle.disconnected:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        cycle.message_event.clear()  # set next when the client disconnects
        self.flow.resume_reading()
        return body

    def watch(self, scope: Scope) -> asyncio.Future[type[Exception]] | None:
        """None under the same conditions as the body."""
        cycle = self.cycle
        if cycle is None or cycle.scope is not scope or cycle.more_body or cycle.disconnected:
            return None
        self.flow.resume_reading()  # a large body paused it, and a disconnect would go unseen
        left: asyncio.Future[type[Exception]] = self.loop.create_future()
        self._disconnects.append(left)
        return left

    def hold(self, size: int) -> bool:
        """Counts like a body, as what a body decompresses to does."""
        if self._running is None:
            return True
        self._counted = True
        return self._shared.bodies.add(id(self._running.scope), size)

    def send_whole(self, scope: Scope, status: int, head: bytes, body: bytes) -> bool:
        """In one write, where uvicorn makes two and reads every header again. False also where the
        client is slow or gone, or an answer has begun."""
        cycle = self.cycle
        if cycle is None or cycle.scope is not scope or cycle.disconnected:
            return False
        if cycle.flow.write_paused or cycle.response_started:
            return False
        ending = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        self._wrapper.write_soon(b"".join((STATUS_LINE[status], head, ending, body)))
        cycle.message_event.set()
        if not cycle.keep_alive:
            self._wrapper.close()
        cycle.on_response()
        return True

    def evict(self) -> None:
        """Refuses its body to free memory, unless that was completed since the last sweep."""
        if self._awaited() is Awaited.BODY:
            self._refuse_body()

    def _refuse_body(self) -> None:
        self._shared.bodies.drop(id(self.cycle.scope))
        self._refuse(errors.Overloaded())

    def shutdown(self) -> None:
        """A complete request is still answered; every other connection is closed at once."""
        if self.transport.is_closing() or not self._in_flight:
            self._wrapper.shut()
        elif self.cycle.more_body:
            self._refuse(errors.NotReady())
            if self.transport.is_closing():
                self._wrapper.shut()
        else:
            self._discarding = True  # another request would keep the process alive
            super().shutdown()

    # -- ending --------------------------------------------------------------------------------

    @property
    def _in_flight(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, error: errors.ServiceError) -> None:
        if not self._discarding:
            self._discarding = True
            self._error = error
            self._pending = NOTHING
            self._send_error_in_turn()

    def _send_error_in_turn(self) -> None:
        """Send the error if no other answer comes first; else the next sweep tries again."""
        cycle, error = self.cycle, self._error
        if error is None:
            return  # shutting down; the last request is still being answered
        if not self._in_flight:
            self._send_error(error)
        elif self.pipeline or not cycle.more_body:
            return  # earlier answers come first
        elif cycle.response_started:
            self._inner.abort()  # a cut answer must not look complete
        else:
            cycle.disconnected = True  # for the application the client has gone
            cycle.message_event.set()
            self._send_error(error)

    def _send_error(self, error: errors.ServiceError) -> None:
        answer = Answer.error(error)
        connection_refused(error.code)
        answer.headers += [*self.server_state.default_headers, (b"connection", b"close")]
        self._wrapper.write(STATUS_LINE[error.status] + answer.lines() + b"\r\n" + answer.body)
        if isinstance(error, errors.RequestTimeout):
            self._wrapper.shut()  # the client sends nothing, so no reset can follow
        else:
            self._linger()

    def _lingers(self) -> bool:
        """Called when uvicorn closes. Whether the socket stays open for the rest of a body."""
        cycle = self.cycle
        unread = cycle is not None and cycle.response_complete and cycle.more_body
        if unread and not self._wrapper.closed:
            self._linger()
        return unread

    def _linger(self) -> None:
        self._discarding = self._wrapper.closed = True
        self._linger_until = self.loop.time() + self.patience.linger_seconds
        self._linger_bytes = self._parsed + self.patience.linger_bytes
        self.flow.resume_reading()
        self._wrapper.flush()
        if self._inner.can_write_eof():
            self._inner.write_eof()  # the client knows at once that the answer is complete

    # -- the sweep -----------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Check the limits; `now` is the loop's time in seconds."""
        clocks, patience = self._clocks, self.patience
        if clocks.unsent_for(now, self._inner.get_write_buffer_size()) >= patience.unsent_seconds:
            self._inner.abort()
        elif self._wrapper.closed:
            if now >= self._linger_until:
                self._wrapper.shut()
        elif self._inner.is_closing():
            return
        elif self._discarding:
            self._send_error_in_turn()
        else:
            awaited = self._awaited()
            if self._counted:
                self._update_rate(awaited)
            clocks.update(now, awaited, self._requests, self._parsed)
            if clocks.is_overdue(now, patience):
                self._refuse(errors.RequestTimeout())
            elif awaited is Awaited.REQUEST and now - clocks.since >= self.timeout_keep_alive:
                self.timeout_keep_alive_handler()

    def _update_rate(self, awaited: Awaited) -> None:
        """The rate of a large body: an average that gives half to the last sweep."""
        if awaited is Awaited.BODY:
            came = (self._parsed - self._clocks.parsed) / self.patience.sweep_seconds
            self._body_rate = (self._body_rate + came) / 2
            self._shared.bodies.pace(self, id(self.cycle.scope), self._body_rate)
        else:
            self._body_rate = 0.0
            self._shared.bodies.forget(self)

    def _awaited(self) -> Awaited:
        cycle = self.cycle
        if self.flow.read_paused:
            return Awaited.NOTHING
        if not self._in_flight:
            return Awaited.REQUEST if self._parsed == self._idle_at else Awaited.HEAD
        body = cycle.more_body and not cycle.waiting_for_100_continue
        return Awaited.BODY if body else Awaited.NOTHING


class GuardedServer(Server):
    """uvicorn's server, with the head's time for a TLS handshake; asyncio's is a minute.

    libuv accepts one connection a turn of the event loop for each listening descriptor. `alone`:
    no other process takes connections from these sockets, so this one accepts from several copies
    of each, and a connection behind ten others does not wait for ten turns. Where processes share
    a socket, one a turn spreads a burst among them.
    """

    def __init__(self, config: Config, *, alone: bool) -> None:
        super().__init__(config)
        self._accepts = ACCEPTS if alone else 1

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self.config.is_ssl:
            loop = asyncio.get_running_loop()
            protocol = cast("type[GuardedProtocol]", self.config.http_protocol_class)
            seconds = protocol.patience.head_seconds
            create = partial(loop.create_server, ssl_handshake_timeout=seconds)
            loop.create_server = create  # type: ignore[method-assign]
        await super().startup([one.dup() for one in sockets or () for _ in range(self._accepts)])


def guarded(patience: Patience) -> type[GuardedProtocol]:
    return type("GuardedProtocol", (GuardedProtocol,), {"patience": patience})


class _Flow(FlowControl):
    """Stays paused while requests wait for their turn or answers are not read by the client."""

    def __init__(self, transport: asyncio.Transport, pipeline: deque[Any]) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if self.read_paused and not self._pipeline and not self.write_paused:
            super().resume_reading()


class Awaited(Enum):
    NOTHING = auto()  # the server is working
    REQUEST = auto()  # keep-alive: no byte of another request has come
    HEAD = auto()
    BODY = auto()


class _Clocks:
    __slots__ = (
        "_awaited", "_base", "_heard", "_requests", "_unsent", "_written", "parsed", "since",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self._awaited = Awaited.HEAD
        self.since = self._heard = self._written = now
        self.parsed = self._requests = self._base = self._unsent = 0

    def update(self, now: float, awaited: Awaited, requests: int, parsed: int) -> None:
        """Another request, or another part of it, restarts the clocks."""
        if awaited is not self._awaited or requests != self._requests:
            self._awaited, self._requests = awaited, requests
            self.since = self._heard = now
            self._base = parsed
        elif parsed != self.parsed:
            self._heard = now
        self.parsed = parsed

    def is_overdue(self, now: float, patience: Patience) -> bool:
        """Whether the limit is exceeded, or will be before the next sweep."""
        soon = now + patience.sweep_seconds
        if self._awaited is Awaited.HEAD:
            return soon - self.since >= patience.head_seconds
        if self._awaited is Awaited.BODY:
            return soon - self._heard >= patience.stall_seconds or self._drips(now, patience)
        return False

    def _drips(self, now: float, patience: Patience) -> bool:
        seconds, came = now - self.since, self.parsed - self._base
        if seconds < patience.drip_seconds:
            return False
        self.since, self._base = now, self.parsed
        return came < seconds * patience.drip_bytes

    def unsent_for(self, now: float, unsent: int) -> float:
        """Seconds without progress of what waits to be sent."""
        if unsent == 0 or unsent != self._unsent:
            self._written = now
        self._unsent = unsent
        return now - self._written


@dataclass(slots=True, eq=False)
class _TransportWrapper:
    """The transport as uvicorn sees it: closed for uvicorn, while the socket may linger. What
    `write_soon` takes is sent before any later write, and before the socket closes."""

    _inner: asyncio.Transport
    _shared: _Shared
    _lingers: Callable[[], bool]
    _soon: bytes = b""
    closed: bool = False

    def write(self, data: bytes) -> None:
        self._soon += data
        self.flush()

    def write_soon(self, data: bytes) -> None:
        if not self._soon:
            self._shared.flush_soon(self)
        self._soon += data

    def flush(self) -> None:
        soon, self._soon = self._soon, b""
        if soon and not self._inner.is_closing():
            self._inner.write(soon)
            if len(soon) > SMALL:
                self._shared.answers.wrote(self, len(soon))

    def is_closing(self) -> bool:
        return self.closed or self._inner.is_closing()

    def close(self) -> None:
        if not self._lingers():
            self.shut()

    def shut(self) -> None:
        self.flush()
        self._inner.close()

    def detach(self) -> None:
        self._lingers = bool  # returns False, and refers to no connection
        self._shared.answers.forget(self)

    def unsent(self) -> int:
        return self._inner.get_write_buffer_size()

    def cut(self) -> None:
        """End it at once: the client reads too slowly for what this process holds for it."""
        connection_refused("answer_not_taken")
        self._inner.abort()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Shared:
    """What the connections of a server share: one timer, stopped while there are none; the
    transports to be flushed at the end of this turn; the counts of bodies and answers held."""

    _of_server: ClassVar[WeakKeyDictionary[ServerState, _Shared]] = WeakKeyDictionary()

    def __init__(
        self, state: ServerState, loop: asyncio.AbstractEventLoop, patience: Patience
    ) -> None:
        self._connections = state.connections
        self._loop = loop
        self._seconds = patience.sweep_seconds
        self._timer: asyncio.TimerHandle | None = None
        self._unsent: list[_TransportWrapper] = []
        self.answers = Answers(patience.answers_bytes, loop.time)
        self.bodies = Bodies(patience.bodies_bytes)
        self._trim = Trim(TRIM_FROM)

    @classmethod
    def of(cls, state: ServerState, loop: asyncio.AbstractEventLoop, patience: Patience) -> _Shared:
        shared = cls._of_server.get(state)
        if shared is None:
            shared = cls._of_server[state] = cls(state, loop, patience)
        return shared

    def flush_soon(self, transport: _TransportWrapper) -> None:
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(transport)

    def _flush(self) -> None:
        transports, self._unsent = self._unsent, []
        for transport in transports:
            try:
                transport.flush()
            except Exception:  # the other connections' answers must still go out
                log.exception("an answer could not be written")

    def wake(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self.bodies.show()
        self.answers.show()
        self._trim.holds(self.bodies.total + self.answers.total)
        self._trim.tidy()
        if self._connections:
            self.wake()  # first, so that no error below ends the sweeping
            self._slice(list(self._connections))

    def _slice(self, left: list[Any]) -> None:
        """Some connections a turn: ending thousands at once would delay good clients."""
        now, turn = self._loop.time(), left[-SLICE:]
        del left[-SLICE:]
        if left:
            self._loop.call_soon(self._slice, left)
        for connection in turn:
            if connection in self._connections and isinstance(connection, GuardedProtocol):
                connection.check(now)
