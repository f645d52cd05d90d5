"""A connection that wastes the server's time is answered and closed; uvicorn alone would wait.

    connect ──5 s──► head ──32 KiB──► body ──5 s of silence, or a drip──► answer ──linger──► close
               408           431                       408

Well-behaved requests pay for no timer, not even uvicorn's own for kept connections. uvicorn's state
says what a connection is waiting for, and one sweep per process, twice a second, compares that with
the sweep before. A limit is a promise, so a wait that would pass it before the next sweep ends with
this one. An answer that ends a request before its body was read is followed by a lingering close: a
socket closed over unread bytes is reset, and the client may lose the answer.

A client that sends requests ahead of its answers is not read while any of them waits for its turn,
nor while it takes no answers: what was read of it by then is parsed in small pieces, and the rest
stays as the bytes it is. An offered upgrade is ignored (RFC 9110, 7.8): the parser would stop at
it, so another one reads on behind a head without the offer.

Whole answers leave at the end of a turn of the loop, one connection's after another's. A write
wakes the process that waits for it, which costs a third of a cache hit; a client or a balancer that
is still at the first answer of a turn need not be woken for the others.
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
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import Server, ServerState

from litapi.allocator import Trim
from litapi.errors import (
    HeadersTooLarge,
    HttpInvalid,
    NotReady,
    Overloaded,
    RequestTimeout,
    ServiceError,
)
from litapi.http.answer import Answer
from litapi.http.held import SMALL, TRIM_FROM, Answers, Bodies
from litapi.http.request import CONNECTION, ClientGone, Connection, Scope
from litapi.metrics import connection_refused

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

log = logging.getLogger("siglit.guard")

SLICE = 50  # connections looked at before others get a turn
AT_ONCE = 1 << 10  # bytes that are parsed at once; as many requests ahead may be in them
PIECE = 256  # bytes of more than that which are parsed at once ...
BODY_PIECE = 8 << 10  # ... and where a body is awaited
NOTHING = memoryview(b"")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long, and over how much, a connection may keep the server waiting."""

    head_seconds: float = 5.0  # from connecting, or from the first byte, to the end of the headers
    head_bytes: int = 32 << 10  # request line and headers; trailers and chunk framing likewise
    stall_seconds: float = 5.0  # without a byte while the body is awaited
    drip_bytes: int = 1024  # bytes a second that a body must bring at least ...
    drip_seconds: float = 20.0  # ... on average over this long
    unsent_seconds: float = 30.0  # a client that takes nothing of its answer
    linger_seconds: float = 2.0  # reading on after an early answer, at most this long ...
    linger_bytes: int = 64 << 20  # ... and this much
    sweep_seconds: float = 0.5  # between two looks at all connections
    bodies_bytes: int = 128 << 20  # of all large bodies that a process holds
    answers_bytes: int = 64 << 20  # of all large answers that clients have not taken


class GuardedProtocol(HttpToolsProtocol, Connection):
    """uvicorn's httptools protocol with limits; give it, or a `guarded` one, to uvicorn as `http=`.

    A client that broke a limit reads an error of the shared form: 408 `request_timeout`,
    431 `headers_too_large`, 400 `invalid_http`, or 503 `not_ready` at shutdown.
    """

    patience: ClassVar[Patience] = Patience()

    # -- uvicorn's callbacks; those that run for every request do little -----------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Puts a door before the transport, so that uvicorn's closing can be made to linger."""
        self._wire = cast("asyncio.Transport", transport)
        self._sweep = sweep = _Sweep.of(self.server_state, self.loop, self.patience)
        self._door = _Door(self._wire, sweep.outbox, self._lingers)
        self._pending = NOTHING  # received, but not parsed yet
        self._taken = 0  # bytes parsed
        self._head_end = 0  # `_taken` when the last head was whole
        self._owed = False  # whether the next request waits until the client takes its answers
        self._heavy = False  # whether it ever sent a body that counts
        self._running: RequestResponseCycle | None = None  # the request whose turn it is
        self._rate = 0.0  # bytes a second that such a body brings
        self._asked = 0  # requests begun
        self._fruit = 0  # `_taken` when a body byte, or the end of a request, last came
        self._rested = -1  # `_taken` when the last answer was whole and nothing else was asked
        self._keep_alive = True  # whether the client wants it
        self._fault: ServiceError | None = None  # said when the answers before it are out
        self._deaf = False  # what still arrives is thrown away
        self._watch = _Watch(self.loop.time())
        self._leaves: list[asyncio.Future[type[Exception]]] = []  # told that the client left
        self._extensions: Any = {CONNECTION: self}
        super().connection_made(cast("asyncio.Transport", self._door))
        self.flow = _Flow(self.transport, self.pipeline)
        sweep.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Lets go of what refers to this object, which would wait for the collector otherwise."""
        self._door.let_go()
        self._extensions = {}
        self._pending = NOTHING
        if self._heavy:
            self._sweep.bodies.forget(self)
            for waiting, _ in self.pipeline:
                self._sweep.bodies.drop(id(waiting.scope))
        super().connection_lost(exc)
        self._running = None
        self.scope = self.cycle = None  # type: ignore[assignment]  # as before the first request
        self.pipeline.clear()
        for left in self._leaves:
            if not left.done():
                left.set_result(ClientGone)
        self._leaves.clear()

    def data_received(self, data: bytes) -> None:
        """Parses what came; in pieces where it may hold many requests."""
        if self._deaf:
            self._taken += len(data)
            self._discard()
        elif len(data) > AT_ONCE or self._pending:
            self._pending = memoryview(bytes(self._pending) + data if self._pending else data)
            self._read_on()
        else:
            parsed = self._parse(data)
            if parsed < len(data):
                self._pending = memoryview(data)[parsed:]
                self._read_on()

    def _read_on(self) -> None:
        """Parse what has come until a request must wait for its turn; then read more."""
        flow = self.flow
        while self._pending and not (self.pipeline or flow.write_paused or self._deaf):
            awaited = self._in_flight and self.cycle.more_body
            parsed = self._parse(self._pending[: BODY_PIECE if awaited else PIECE])
            self._pending = self._pending[parsed:]
        if self._deaf:
            self._pending = NOTHING
        if self._pending:
            flow.pause_reading()
        elif self.cycle is None or len(self.cycle.body) <= HIGH_WATER_LIMIT:
            flow.resume_reading()  # else the application does, once it takes the body

    def _parse(self, data: bytes | memoryview) -> int:
        """Gives the parser one piece, and says how much of it was parsed.

        Counts what is neither body nor a whole request: headers, trailers, framing.
        """
        parsed = len(data)
        self._taken += parsed
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            self._taken -= parsed - stopped.args[0]
            parsed = stopped.args[0]
            self._ignore_upgrade()
        except httptools.HttpParserError:
            self._end(self._fault or HttpInvalid())
        if self._taken - self._fruit > self.patience.head_bytes:
            self._end(HeadersTooLarge())
        return parsed

    def _should_upgrade(self) -> bool:
        """uvicorn asks before it begins with a request; `_ignore_upgrade` begins it instead."""
        return True

    def _ignore_upgrade(self) -> None:
        """Read the request as if nothing had been offered, its body with it."""
        if self.parser.get_method() == b"CONNECT":
            self._end(HttpInvalid())  # what follows belongs to a tunnel that there is not
            return
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/"]
        head += [self.parser.get_http_version().encode(), b"\r\n"]
        for name, value in self.headers:
            if name == b"connection":
                options = [one for one in value.split(b",") if one.strip().lower() != b"upgrade"]
                head += [name, b": ", b",".join(options), b"\r\n"]
            elif name != b"upgrade":
                head += [name, b": ", value, b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        try:
            self.parser.feed_data(b"".join([*head, b"\r\n"]))
        except httptools.HttpParserError:  # of what is looked at when a request begins
            self._end(self._fault or HttpInvalid())

    def on_headers_complete(self) -> None:
        """Until its body is whole, an answer to the request will close the connection."""
        if self._taken - self._fruit > self.patience.head_bytes:
            self._measure()
        super().on_headers_complete()
        if self.cycle is not None and self.cycle.scope is self.scope:  # else it is an upgrade
            self._asked += 1
            self._head_end = self._taken
            self._keep_alive = self.cycle.keep_alive
            self.cycle.keep_alive = False
            # Functions of the cycle would make it refer to itself: only the collector finds that.
            self.cycle.scope["extensions"] = self._extensions

    def on_body(self, body: bytes) -> None:
        """Body bytes are for the application to limit; here, what all requests hold together."""
        self._fruit = self._taken
        super().on_body(body)
        if self._taken - self._head_end > SMALL and not self._deaf:
            self._weigh(len(body))

    def _weigh(self, size: int) -> None:
        if not self.cycle.response_complete:
            self._heavy = True
            if not self._sweep.bodies.add(id(self.cycle.scope), size):
                self._refuse_body()

    def on_message_complete(self) -> None:
        """The body is whole: the connection may live on, unless its end was announced already."""
        self._fruit = self._taken
        super().on_message_complete()
        cycle = self.cycle
        if cycle is not None and cycle.scope is self.scope and not cycle.response_started:
            cycle.keep_alive = self._keep_alive

    def on_response_complete(self) -> None:
        """As uvicorn's, but for its timer: a new one for each answer is a tenth of a cache hit.

        And the client that sent requests ahead must take this answer before the next is begun.
        """
        self.server_state.total_requests += 1
        self._leaves.clear()
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._door.flush()
            self._owed = True
            self._begin_owed()
        else:
            self.flow.resume_reading()
            self._rested = self._taken  # from here on the sweep waits for another request

    def _begin_owed(self) -> None:
        if self._owed and not self.flow.write_paused:
            self._owed = False
            self._start_asgi_task(*self.pipeline.pop())
            self._read_on()

    def pause_writing(self) -> None:
        """Who takes no answers is not read."""
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """The client takes its answers again: it is the turn of its next request."""
        super().resume_writing()
        if self._wire.is_closing():
            return
        if self._owed:
            self._begin_owed()
        else:
            self._read_on()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """As uvicorn's, but for a callback at the end of each task."""
        self._running = cycle
        self._begun = self.loop.create_task(self._run(cycle, app))
        self.tasks.add(self._begun)

    async def _run(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        task = self._begun  # the next one begins after this one's answer
        try:
            await cycle.run_asgi(app)
        finally:
            self.tasks.discard(task)
            if self._heavy:
                self._sweep.bodies.drop(id(cycle.scope))

    # -- what a request may ask for beyond ASGI ------------------------------------------------

    def take_body(self, scope: Scope) -> bytes | None:
        """What the first `receive` would give, where that is the whole body."""
        cycle = self.cycle
        if cycle is None or cycle.scope is not scope or cycle.more_body or cycle.disconnected:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        cycle.message_event.clear()  # from here on it says that the client has gone
        self.flow.resume_reading()
        return body

    def watch(self, scope: Scope) -> asyncio.Future[type[Exception]] | None:
        """None under the same conditions as the body."""
        cycle = self.cycle
        if cycle is None or cycle.scope is not scope or cycle.more_body or cycle.disconnected:
            return None
        self.flow.resume_reading()  # stopped by a large body; the end would not be seen
        left: asyncio.Future[type[Exception]] = self.loop.create_future()
        self._leaves.append(left)
        return left

    def hold(self, size: int) -> bool:
        """These bytes are those of a body that was decompressed."""
        if self._running is None:
            return True
        self._heavy = True
        return self._sweep.bodies.add(id(self._running.scope), size)

    def send_whole(self, scope: Scope, status: int, head: bytes, body: bytes) -> bool:
        """In one write, where uvicorn makes two and reads every header again.

        False also where the client is slow or gone, or an answer has begun.
        """
        cycle = self.cycle
        if (
            cycle is None
            or cycle.scope is not scope
            or cycle.flow.write_paused
            or cycle.disconnected
            or cycle.response_started
        ):
            return False
        ending = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        self._door.write_soon(b"".join((STATUS_LINE[status], head, ending, body)))
        cycle.message_event.set()
        if not cycle.keep_alive:
            self._door.close()
        cycle.on_response()
        return True

    def overloads(self) -> None:
        """Its body is the one that memory is taken from, unless it came whole since the sweep."""
        if self._awaited() is Awaited.BODY:
            self._refuse_body()

    def _refuse_body(self) -> None:
        self._sweep.bodies.drop(id(self.cycle.scope))
        self._end(Overloaded())

    def shutdown(self) -> None:
        """A whole request is still answered; whatever else is there is closed at once."""
        if self.transport.is_closing() or not self._in_flight:
            self._door.shut()
        elif self.cycle.more_body:
            self._end(NotReady())
            if self.transport.is_closing():
                self._door.shut()
        else:
            self._deaf = True  # another request would keep the connection, and so the process
            super().shutdown()

    # -- ending --------------------------------------------------------------------------------

    @property
    def _in_flight(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _measure(self) -> None:
        """Raise if the head itself is too large, and not only the packet it came in."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.patience.head_bytes:
            self._fault = HeadersTooLarge()
            raise ValueError  # the parser stops

    def _end(self, error: ServiceError) -> None:
        """Listen no more; answer with `error` when it is its turn, and close."""
        if not self._deaf:
            self._deaf = True
            self._fault = error
            self._pending = NOTHING
            self._settle()

    def _settle(self) -> None:
        """Say what is wrong, if nothing is to be said before it; else the next sweep tries."""
        cycle, error = self.cycle, self._fault
        if error is None:
            return  # the server is shutting down, and its last answer is in work
        if not self._in_flight:
            self._say(error)
        elif self.pipeline or not cycle.more_body:
            return  # answers before it are still to come
        elif cycle.response_started:
            self._wire.abort()  # a broken answer must not look whole
        else:
            cycle.disconnected = True  # to the application its client is gone
            cycle.message_event.set()
            self._say(error)

    def _say(self, error: ServiceError) -> None:
        answer = Answer.error(error)
        connection_refused(error.code)
        answer.headers += [*self.server_state.default_headers, (b"connection", b"close")]
        self._door.write(STATUS_LINE[error.status] + answer.lines() + b"\r\n" + answer.body)
        if isinstance(error, RequestTimeout):
            self._door.shut()  # nothing arrives, so nothing needs to be read
        else:
            self._linger()

    def _lingers(self) -> bool:
        """Called when uvicorn closes. Whether the wire stays open for the rest of a body."""
        cycle = self.cycle
        unread = cycle is not None and cycle.response_complete and cycle.more_body
        if unread and not self._door.closed:
            self._linger()
        return unread

    def _linger(self) -> None:
        self._deaf = self._door.closed = True
        self._linger_until = self.loop.time() + self.patience.linger_seconds
        self._linger_bytes = self._taken + self.patience.linger_bytes
        self.flow.resume_reading()
        self._door.flush()
        if self._wire.can_write_eof():
            self._wire.write_eof()  # the client knows at once that the answer is whole

    def _discard(self) -> None:
        if self._door.closed and self._taken > self._linger_bytes:
            self._door.shut()

    # -- the sweep -----------------------------------------------------------------------------

    def swept(self, now: float) -> None:
        """One look at this connection; `now` is the loop's time in seconds."""
        watch, patience = self._watch, self.patience
        if watch.unsent_for(now, self._wire.get_write_buffer_size()) >= patience.unsent_seconds:
            self._wire.abort()
        elif self._door.closed:
            if now >= self._linger_until:
                self._door.shut()
        elif self._wire.is_closing():
            return
        elif self._deaf:
            self._settle()
        else:
            awaited = self._awaited()
            if self._heavy:
                self._pace(awaited)
            watch.look(now, awaited, self._asked, self._taken)
            if watch.tired(now, patience):
                self._end(RequestTimeout())
            elif watch.idle_for(now) >= self.timeout_keep_alive:
                self.timeout_keep_alive_handler()

    def _pace(self, awaited: Awaited) -> None:
        """How fast a large body comes, the last sweep for half of it."""
        if awaited is Awaited.BODY:
            came = self._watch.came(self._taken) / self.patience.sweep_seconds
            self._rate = (self._rate + came) / 2
            self._sweep.bodies.pace(self, id(self.cycle.scope), self._rate)
        else:
            self._rate = 0.0
            self._sweep.bodies.forget(self)

    def _awaited(self) -> Awaited:
        cycle = self.cycle
        if self.flow.read_paused:
            return Awaited.NOTHING
        if not self._in_flight:
            return Awaited.REQUEST if self._taken == self._rested else Awaited.HEAD
        body = cycle.more_body and not cycle.waiting_for_100_continue
        return Awaited.BODY if body else Awaited.NOTHING


class GuardedServer(Server):
    """uvicorn's server. A TLS handshake is part of a head: asyncio would wait a minute for it."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's."""
        if self.config.is_ssl:
            loop = asyncio.get_running_loop()
            protocol = cast("type[GuardedProtocol]", self.config.http_protocol_class)
            seconds = protocol.patience.head_seconds
            create = partial(loop.create_server, ssl_handshake_timeout=seconds)
            loop.create_server = create  # type: ignore[method-assign]
        await super().startup(sockets)


def guarded(patience: Patience) -> type[GuardedProtocol]:
    """A protocol class with limits of its own."""
    return type("GuardedProtocol", (GuardedProtocol,), {"patience": patience})


class _Flow(FlowControl):
    """Reading rests while requests wait for their turn or answers to be taken, whoever wants it."""

    def __init__(self, transport: asyncio.Transport, ahead: deque[Any]) -> None:
        super().__init__(transport)
        self._ahead = ahead

    def resume_reading(self) -> None:
        if self.read_paused and not self._ahead and not self.write_paused:
            super().resume_reading()


class Awaited(Enum):
    """What the server is waiting for on a connection."""

    NOTHING = auto()  # it is the server's turn
    REQUEST = auto()  # another one, or none; no byte of it has come
    HEAD = auto()
    BODY = auto()


class _Watch:
    """What the sweeps saw of one connection."""

    __slots__ = ("_asked", "_awaited", "_base", "_heard", "_since", "_taken", "_unsent", "_written")

    def __init__(self, now: float) -> None:
        self._awaited = Awaited.HEAD
        self._since = self._heard = self._written = now
        self._asked = self._base = self._taken = self._unsent = 0

    def look(self, now: float, awaited: Awaited, asked: int, taken: int) -> None:
        """Another request, or another part of it, starts the clocks afresh."""
        if awaited is not self._awaited or asked != self._asked:
            self._awaited, self._asked = awaited, asked
            self._since = self._heard = now
            self._base = taken
        elif taken != self._taken:
            self._heard = now
        self._taken = taken

    def tired(self, now: float, patience: Patience) -> bool:
        """Whether the wait was too long, or will be by the next sweep."""
        soon = now + patience.sweep_seconds
        if self._awaited is Awaited.HEAD:
            return soon - self._since >= patience.head_seconds
        if self._awaited is Awaited.BODY:
            return soon - self._heard >= patience.stall_seconds or self._drips(now, patience)
        return False

    def _drips(self, now: float, patience: Patience) -> bool:
        seconds, came = now - self._since, self._taken - self._base
        if seconds < patience.drip_seconds:
            return False
        self._since, self._base = now, self._taken
        return came < seconds * patience.drip_bytes

    def came(self, taken: int) -> int:
        """Bytes since the last look."""
        return taken - self._taken

    def idle_for(self, now: float) -> float:
        """Seconds for which the client has asked nothing more."""
        return now - self._since if self._awaited is Awaited.REQUEST else 0.0

    def unsent_for(self, now: float, unsent: int) -> float:
        """Seconds for which the client has taken nothing of what waits to be sent."""
        if unsent == 0 or unsent != self._unsent:
            self._written = now
        self._unsent = unsent
        return now - self._written


class _Door:
    """The transport as uvicorn sees it: closed for uvicorn, while the wire may linger.

    What is written soon leaves before anything else that is written, and before the wire closes.
    """

    __slots__ = ("_lingers", "_outbox", "_soon", "_wire", "closed")

    def __init__(
        self, wire: asyncio.Transport, outbox: _Outbox, lingers: Callable[[], bool]
    ) -> None:
        self._wire = wire
        self._outbox = outbox
        self._lingers = lingers
        self._soon = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.flush()
        self._write(data)

    def _write(self, data: bytes) -> None:
        self._wire.write(data)
        if len(data) > SMALL:
            self._outbox.answers.wrote(self, len(data))

    def write_soon(self, data: bytes) -> None:
        """Written with what other connections write in this turn of the loop."""
        if not self._soon:
            self._outbox.put(self)
        self._soon += data

    def flush(self) -> None:
        if self._soon:
            soon, self._soon = self._soon, b""
            if not self._wire.is_closing():
                self._write(soon)

    def is_closing(self) -> bool:
        return self.closed or self._wire.is_closing()

    def close(self) -> None:
        if not self._lingers():
            self.shut()

    def shut(self) -> None:
        """Close the wire itself."""
        self.flush()
        self._wire.close()

    def let_go(self) -> None:
        self._lingers = bool  # which is False, and refers to nobody
        self._outbox.answers.forget(self)

    def unsent(self) -> int:
        return self._wire.get_write_buffer_size()

    def cut(self) -> None:
        """The client takes its answers too slowly for what they make this process hold."""
        connection_refused("answer_not_taken")
        self._wire.abort()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wire, name)


class _Outbox:
    """The doors of a server that have something to write at the end of this turn of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, answers_bytes: int) -> None:
        self._loop = loop
        self._doors: list[_Door] = []
        self.answers = Answers(answers_bytes, loop.time)

    def put(self, door: _Door) -> None:
        if not self._doors:
            self._loop.call_soon(self._flush)
        self._doors.append(door)

    def _flush(self) -> None:
        doors, self._doors = self._doors, []
        for door in doors:
            try:
                door.flush()
            except Exception:  # of any kind: the others' answers are not lost for it
                log.exception("an answer could not be written")


class _Sweep:
    """The one timer of a server, which rests while there are no connections.

    With it, what the connections of the server have in common: outbox, bodies and answers held.
    """

    _of_server: ClassVar[WeakKeyDictionary[ServerState, _Sweep]] = WeakKeyDictionary()

    def __init__(
        self, state: ServerState, loop: asyncio.AbstractEventLoop, patience: Patience
    ) -> None:
        self._connections = state.connections
        self._loop = loop
        self._seconds = patience.sweep_seconds
        self._timer: asyncio.TimerHandle | None = None
        self.outbox = _Outbox(loop, patience.answers_bytes)
        self.bodies = Bodies(patience.bodies_bytes)
        self._trim = Trim(TRIM_FROM)

    @classmethod
    def of(cls, state: ServerState, loop: asyncio.AbstractEventLoop, patience: Patience) -> _Sweep:
        sweep = cls._of_server.get(state)
        if sweep is None:
            sweep = cls._of_server[state] = cls(state, loop, patience)
        return sweep

    def wake(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self.bodies.show()
        self.outbox.answers.show()
        self._trim.holds(self.bodies.total + self.outbox.answers.total)
        self._trim.tidy()
        if self._connections:
            self.wake()  # first, so that no error below ends the sweeping
            self._slice(list(self._connections))

    def _slice(self, left: list[Any]) -> None:
        """Some connections a turn: ending thousands at once would keep good clients waiting."""
        now, turn = self._loop.time(), left[-SLICE:]
        del left[-SLICE:]
        if left:
            self._loop.call_soon(self._slice, left)
        for connection in turn:
            if connection in self._connections and isinstance(connection, GuardedProtocol):
                connection.swept(now)
