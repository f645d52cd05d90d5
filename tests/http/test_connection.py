"""Raw sockets against a real uvicorn process whose connections are guarded.

The limits of `HASTY` are a few times shorter than the defaults, so that the file runs in seconds;
where a good client talks, they are `PATIENT`'s, so that a slow machine does not make it a late one.
"""

import asyncio
import contextlib
import gc
import hashlib
import http.client
import inspect
import json
import multiprocessing
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from bench.rig.server_process import resident_mb
from litapi.errors import ServiceError
from litapi.http.answer import Answer
from litapi.http.connection import (
    GuardedProtocol,
    GuardedServer,
    Patience,
    _Shared,
    _TransportWrapper,
    guarded,
)
from litapi.http.held import GRACE
from litapi.http.request import ClientGone, Incoming, Receive, Scope, Send
from tests.support.patience import awaited, heard, settled, until

LIMIT = 1 << 20
HASTY = Patience(
    head_seconds=0.7,
    stall_seconds=0.7,
    drip_bytes=20_000,
    drip_seconds=0.8,
    unsent_seconds=0.7,
    linger_seconds=0.7,
    sweep_seconds=0.1,
)
PATIENT = replace(
    HASTY, head_seconds=60.0, stall_seconds=60.0, drip_seconds=60.0, unsent_seconds=60.0
)
LONG = 1.2  # seconds: longer than any of HASTY's
WAIT = 60.0  # seconds until a test that hangs fails
GOOD = b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n"
HALF_HEAD = b"GET /hello HTTP/1.1\r\nhost: x\r\nx-a: "
HALF_BODY = b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\nhalf"
CHUNKED = b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """One path for each way in which an application treats a request."""
    if scope["type"] != "http":
        return
    incoming = Incoming(scope, receive, LIMIT)
    with contextlib.suppress(ClientGone):
        await _ROUTES[incoming.path](incoming, send)


async def _answer(answer: Answer, send: Send, more: bool = False) -> None:
    headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": more})


async def _hello(incoming: Incoming, send: Send) -> None:
    await _answer(Answer.json("hello"), send)


async def _echo(incoming: Incoming, send: Send) -> None:
    try:
        answer = Answer.json({"length": len(await incoming.body())})
    except ServiceError as error:
        answer = Answer.error(error)
    await _answer(answer, send)


async def _whole(incoming: Incoming, send: Send) -> None:
    """As `_echo`, or before the body is read, through the extension."""
    body = b"" if incoming.query else await incoming.body()
    head = b"content-length: %d\r\n" % len(body)
    if not incoming.connection.send_whole(incoming.scope, 200, head, body):
        await _answer(Answer(body, headers=[]), send)


async def _at_once(incoming: Incoming, send: Send) -> None:
    """How much of the body was there without waiting, and of the rest how much came; -1: none."""
    first = incoming.at_once()
    rest = len(await incoming.body()) if first is None else -1
    await _answer(Answer.json([-1 if first is None else len(first), rest]), send)


async def _state(incoming: Incoming, send: Send) -> None:
    """Requests that uvicorn takes for unfinished, clients that left, and what is held and slow."""
    protocol = _guard_of(incoming)
    slow = len(protocol._shared.bodies._slow)
    held = {"tasks": len(protocol.tasks), "left": len(_LEFT), "held": len(_HELD), "slow": slow}
    await _answer(Answer.json(held), send)


async def _until_gone(incoming: Incoming, send: Send) -> None:
    """Waits for the client to leave, with its body taken at once; three watch, one loses heart."""
    _LEFT.clear()
    assert incoming.at_once() == b"ab"
    watches = [incoming.gone() for _ in range(3)]
    watches[1].cancel()
    _LEFT.extend([await asyncio.wait_for(watches[n], WAIT) for n in (0, 2)])


async def _watched_late(incoming: Incoming, send: Send) -> None:
    """Begins to watch its client at `/release`, and answers when another's has left."""
    _LEFT.clear()
    assert incoming.at_once() == b"ab"
    await _released()
    watch = incoming.gone()
    await until(lambda: watch.done() or bool(_LEFT))
    await settled()
    if watch.done():
        _LEFT.append(watch.result())
    else:
        watch.cancel()
        await _answer(Answer.json({"left": False}), send)


_LEFT: list[type[Exception]] = []


async def _twice(incoming: Incoming, send: Send) -> None:
    whole = incoming.connection.send_whole
    said = [whole(incoming.scope, 200, b"content-length: 1\r\n", b"a") for _ in range(2)]
    assert said == [True, False]


async def _slow(incoming: Incoming, send: Send) -> None:
    await asyncio.sleep(LONG)
    await _echo(incoming, send)


async def _late(incoming: Incoming, send: Send) -> None:
    """After a while, or once the file that the query names is there."""
    body = await incoming.body()
    if name := incoming.query.get("after"):
        await until(lambda: os.path.exists(name))
    else:
        await asyncio.sleep(LONG)
    await _answer(Answer.json({"length": len(body)}), send)


async def _hold(incoming: Incoming, send: Send) -> None:
    """Keeps its body until `/release`."""
    await incoming.body()
    await _released()
    await _answer(Answer.json("released"), send)


async def _released() -> None:
    _HELD.append(released := asyncio.Event())
    await released.wait()


async def _release(incoming: Incoming, send: Send) -> None:
    for one in _HELD:
        one.set()
    _HELD.clear()
    await _answer(Answer.json(None), send)


_HELD: list[asyncio.Event] = []


async def _large(incoming: Incoming, send: Send) -> None:
    await _answer(Answer(bytes(30 << 20)), send)


async def _begun(incoming: Incoming, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    await incoming.body()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _turns(incoming: Incoming, send: Send) -> None:
    """Holds the loop from one file to the next; then counts turns until all are accepted."""
    held, go = Path(incoming.query["held"]), Path(incoming.query["go"])
    connections = _guard_of(incoming).server_state.connections
    held.touch()
    while not go.exists():
        time.sleep(1e-3)
    turns = 0
    while len(connections) < int(incoming.query["all"]):
        await asyncio.sleep(0)
        turns += 1
    await _answer(Answer.json(turns), send)


def _guard_of(incoming: Incoming) -> GuardedProtocol:
    assert isinstance(incoming.connection, GuardedProtocol)
    return incoming.connection


async def _broken(incoming: Incoming, send: Send) -> None:
    raise RuntimeError


async def _leftovers(incoming: Incoming, send: Send) -> None:
    """How many requests are in memory; with a query, a whole answer. The collector is off."""
    gc.disable()
    left = sum(isinstance(one, RequestResponseCycle) for one in gc.get_objects())
    await _whole(incoming, send) if incoming.query else await _answer(Answer.json(left), send)


_ROUTES = {
    "/hello": _hello, "/leftovers": _leftovers, "/whole": _whole, "/twice": _twice,
    "/at-once": _at_once, "/until-gone": _until_gone, "/watched-late": _watched_late,
    "/state": _state, "/echo": _echo, "/slow": _slow, "/late": _late, "/hold": _hold,
    "/release": _release, "/large": _large, "/begun": _begun, "/broken": _broken,
    "/turns": _turns,
}  # fmt: skip


def _serve(
    listener: socket.socket, options: dict[str, Any], patience: Patience, alone: bool
) -> None:
    config = uvicorn.Config(
        app,
        http=guarded(patience),
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_level="critical",
        access_log=False,
        **options,
    )
    GuardedServer(config, alone=alone).run([listener])


_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])  # a server then starts in milliseconds


class Guarded:
    """That application in a process of its own."""

    def __init__(self, patience: Patience, alone: bool = True, **options: Any) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
            self.address: tuple[str, int] = listener.getsockname()
            arguments = (listener, options, patience, alone)
            self.process = _processes.Process(target=_serve, args=arguments)
            self.process.start()
        with Client(self) as client:  # the backlog takes it before the server is up
            assert client.asked(GOOD).status == 200

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def terminate(self) -> None:
        """SIGTERM, and wait for the end."""
        os.kill(self.pid, signal.SIGTERM)
        self.process.join(WAIT)
        assert not self.process.is_alive(), "still running"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.join()


@pytest.fixture(scope="module")
def server() -> Iterator[Guarded]:
    with Guarded(PATIENT) as running:
        yield running


@pytest.fixture(scope="module")
def hasty() -> Iterator[Guarded]:
    with Guarded(HASTY) as running:
        yield running


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> Any:
        """The JSON in it."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error of the shared form; anything else fails the test."""
        error = self.said["error"]
        assert set(error) == {"message", "type", "code", "param"}
        assert self.headers["content-type"] == "application/json"
        return str(error["code"])


class Client:
    """A plain socket that speaks as much HTTP as a test wants."""

    def __init__(self, server: Guarded) -> None:
        self.socket = socket.create_connection(server.address, timeout=WAIT)
        self._file = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reply(self) -> Reply:
        """One whole answer; EOFError when the server hangs up instead."""
        first = self._file.readline()
        headers = dict(http.client.parse_headers(self._file).items())
        length = int(headers.get("content-length", 0))
        body = self._file.read(length)
        if not first or len(body) < length:
            raise EOFError
        return Reply(int(first.split()[1]), headers, body)

    def asked(self, request: bytes) -> Reply:
        """The answer to a request."""
        self.send(request)
        return self.reply()

    def ended(self) -> bool:
        """Waits for the server to hang up; whether it did so without another byte."""
        return self._file.read(1) == b""

    def reset(self) -> bool:
        """Waits for the end, which may be a reset."""
        with contextlib.suppress(ConnectionResetError):
            self._file.read()
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.socket.close()


@pytest.fixture
def client(server: Guarded) -> Iterator[Client]:
    with Client(server) as one:
        yield one


@pytest.fixture
def hurried(hasty: Guarded) -> Iterator[Client]:
    with Client(hasty) as one:
        yield one


def ask(server: Guarded, request: bytes = GOOD) -> Reply:
    """One request on a connection of its own."""
    with Client(server) as client:
        return client.asked(request)


def state(server: Guarded) -> dict[str, int]:
    """What the server counts, this request among the unfinished ones."""
    counted: dict[str, int] = ask(server, post("/state", b"")).said
    return counted


def read_by(server: Guarded, *clients: Client) -> None:
    """Wait until the server has read what these sent, and its loop has turned after that."""
    for client in clients:
        heard(client.socket)
    assert ask(server).status == 200


def refuses(server: Guarded) -> bool:
    """Whether it takes no connection any more."""
    try:
        socket.create_connection(server.address, timeout=WAIT).close()
    except OSError:
        return True
    return False


def post(path: str, body: bytes, *more: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body)}", *more, "", ""]
    return "\r\n".join(lines).encode() + body


def announced(path: str, size: int) -> bytes:
    """The head of a request whose body would have so many bytes."""
    return post(path, bytes(1)).replace(b"length: 1", b"length: %d" % size)[:-1]


def pour(client: Client, piece: bytes, most: int) -> int:
    """Send `piece` over and over, until refused or `most` bytes; how many were taken."""
    taken = 0
    with contextlib.suppress(OSError):
        while taken < most:
            client.send(piece)
            taken += len(piece)
    return taken


def pour_slowly(client: Client, piece: bytes, pause: float = 0.1) -> None:
    """Send `piece` every `pause` seconds until an answer is there, which must be before the end."""
    client.socket.settimeout(pause)
    for _ in range(int(WAIT / pause)):
        with contextlib.suppress(TimeoutError):
            client.socket.recv(1, socket.MSG_PEEK)
            break
        with contextlib.suppress(OSError):
            client.send(piece)
    else:
        raise AssertionError("it may drip for ever")
    client.socket.settimeout(WAIT)


def connections(server: Guarded) -> int:
    """Sockets the server's process holds open, its listener and its own pipes aside."""
    port = f"{server.address[1]:04X}"
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    established = ("01", "08")  # open; or closed by the client alone
    return sum(row[1].endswith(":" + port) and row[3] in established for row in rows)


def test_idle_and_half_sent_connections_end_while_a_good_client_is_served(hasty: Guarded) -> None:
    """300 that say nothing, half a head or half a body read 408; another client is answered."""
    with contextlib.ExitStack() as stack:
        clients = []
        for number in range(300):
            clients.append(stack.enter_context(Client(hasty)))
            clients[-1].send((b"", HALF_HEAD, HALF_BODY)[number % 3])
        assert [ask(hasty).status for _ in range(50)] == [200] * 50
        replies = [client.reply() for client in clients]
        assert all(client.ended() for client in clients)
    assert {(reply.status, reply.code) for reply in replies} == {(408, "request_timeout")}
    assert {reply.headers["connection"] for reply in replies} == {"close"}


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (HALF_HEAD, b"a"),  # the head's time runs from its first byte, however many follow
        (HALF_HEAD, b""),  # which stops uvicorn's own timer of a kept connection
        (b"\r\n", b"\r\n"),  # line breaks before a request are no request, and stop it too
        (HALF_BODY, b"a" * 50),  # bytes that keep coming are not enough, they must come at a rate
    ],
    ids=["head", "half a head", "empty lines", "body"],
)
def test_what_drips_gains_no_time(hurried: Client, kept: bool, start: bytes, drop: bytes) -> None:
    """Neither in the first request of a connection nor in the next."""
    if kept:
        assert hurried.asked(GOOD).status == 200
    hurried.send(start)
    pour_slowly(hurried, drop)
    assert hurried.reply().code == "request_timeout"


def test_an_idle_kept_connection_is_left_to_the_keep_alive_time() -> None:
    """Between requests the longer keep-alive time counts, not the head's time."""
    limits = replace(HASTY, head_seconds=0.1)
    with Guarded(limits, timeout_keep_alive=600) as server, Client(server) as client:
        for _ in range(2):
            assert client.asked(GOOD).status == 200
            time.sleep(0.5)
    with Guarded(limits, timeout_keep_alive=1) as server, Client(server) as client:
        assert client.asked(GOOD).status == 200
        assert client.ended()


@pytest.mark.parametrize(
    ("function", "digest"),
    [
        (HttpToolsProtocol._start_asgi_task, "9c08c2571ae9b038"),
        (HttpToolsProtocol.on_response_complete, "64e254f28e389e76"),
        (RequestResponseCycle.receive, "8124ae006be71184"),
    ],
)
def test_uvicorn_does_what_the_guard_does_in_its_place(function: Any, digest: str) -> None:
    """A new uvicorn may do more: read it, mend the guard, and write the new digest here.

    It keeps the context of its tasks by default, the only case that the guard has.
    """
    assert not uvicorn.Config(app).reset_contextvars
    assert hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16] == digest


def test_a_slow_but_steady_upload_passes() -> None:
    """Many times the lowest rate, for longer than its time, is a slow client and no attack."""
    body = bytes(120_000)
    with Guarded(replace(PATIENT, drip_bytes=1000, drip_seconds=1.0)) as server:
        client = Client(server)
        client.send(post("/echo", body)[: -len(body)])
        for start in range(0, len(body), 6000):
            client.send(body[start : start + 6000])
            time.sleep(0.1)
        assert client.reply().said == {"length": len(body)}
        client.socket.close()


def test_the_time_the_application_takes_is_not_the_clients(hasty: Guarded) -> None:
    """Neither a computation after the body nor one before it makes the client late."""
    for request, length in ((post("/slow", bytes(500_000)), 500_000), (post("/late", b"a"), 1)):
        assert ask(hasty, request).said == {"length": length}


def test_a_client_that_waits_for_100_continue_is_not_late(hurried: Client) -> None:
    """It was told to wait, so the time until it is told to go on is the application's."""
    assert hurried.asked(post("/slow", b"abc", "expect: 100-continue")[:-3]).status == 100
    assert hurried.asked(b"abc").said == {"length": 3}


def test_a_body_that_stalls_after_the_answer_began_is_cut(hurried: Client) -> None:
    """No error fits into an answer under way; it must not look whole either."""
    assert hurried.asked(announced("/begun", 100000)).status == 200
    assert hurried.reset()


def test_an_answer_nobody_takes_is_thrown_away(hasty: Guarded) -> None:
    """A client that asks for 30 MB and does not read holds neither memory nor connection."""
    before = resident_mb(hasty.pid)
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            client = stack.enter_context(Client(hasty))
            client.send(GOOD.replace(b"hello", b"large"))
        awaited(lambda: connections(hasty) == 0)
        awaited(lambda: resident_mb(hasty.pid) < before + 64)


def test_an_answer_taken_slowly_arrives_whole() -> None:
    """As long as the client takes some of it, it may take more than the time for that."""
    patience = replace(PATIENT, unsent_seconds=2.0)
    with Guarded(patience) as server, Client(server) as client:
        client.send(GOOD.replace(b"hello", b"large"))
        size = 0
        while size <= 30 << 20:
            size += len(client.socket.recv(1 << 20, socket.MSG_WAITALL))
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (HALF_HEAD, b"a" * 60_000),
        (b"GET /hello HTTP/1.1\r\n", b"x-header: value\r\n" * 4000),
        (b"GET /hello?", b"a" * 60_000),
        (CHUNKED + b"3\r\nabc\r\n0\r\n", b"x-trailer: value\r\n" * 4000),
        (CHUNKED + b"3\r\nabc\r\n0\r\nx-trailer: ", b"a" * 60_000),
        (CHUNKED + b"3;", b"a" * 60_000),
    ],
    ids=["one header", "many headers", "request line", "trailers", "one trailer", "extension"],
)
def test_an_endless_head_ends_early(hasty: Guarded, start: bytes, piece: bytes) -> None:
    """200 MB that are no body are refused with 431 and leave no memory behind."""
    before = resident_mb(hasty.pid)
    with Client(hasty) as client:
        client.send(start)
        assert pour(client, piece, 200 << 20) < 200 << 20
        reply = client.reply()
    assert (reply.status, reply.code) == (431, "headers_too_large")
    assert resident_mb(hasty.pid) < before + 64


def test_a_large_head_in_one_packet_with_its_body_is_refused(server: Guarded) -> None:
    """What counts is the head, whichever packets it comes in."""
    assert ask(server, post("/echo", b"abc", "x: " + "a" * 33_000)).code == "headers_too_large"
    assert ask(server, post("/echo", b"abc", "x: " + "a" * 31_000)).status == 200
    assert ask(server, post("/echo", bytes(200_000), "x: " + "a" * 31_000)).status == 200


@pytest.mark.parametrize(
    "sent",
    [
        *(b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        *(b"GET / HTTP/9.9\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n"),
        b"POST /echo HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        b"POST /echo HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc",
        b"POST /echo HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        CHUNKED + b"ZZ\r\n",
    ],
)
def test_what_is_no_http_reads_an_error_of_the_shared_form(client: Client, sent: bytes) -> None:
    """uvicorn's plain text becomes the JSON that every other error has, and the end is clean."""
    reply = client.asked(sent)
    assert (reply.status, reply.code) == (400, "invalid_http")
    assert client.ended()


def test_an_announced_gigabyte_is_refused_before_it_is_sent(client: Client) -> None:
    """The 413 comes on the announcement; the connection says that it closes, and does."""
    reply = client.asked(announced("/echo", 1_000_000_000))
    assert (reply.status, reply.code) == (413, "body_too_large")
    assert reply.headers["connection"] == "close"
    assert client.ended()


@pytest.fixture(scope="module")
def lingering() -> Iterator[Guarded]:
    """However slowly twenty clients come to the end of what they send."""
    with Guarded(replace(PATIENT, linger_seconds=WAIT)) as running:
        yield running


@pytest.mark.parametrize("chunked", [True, False])
def test_twenty_clients_that_pour_read_their_413(lingering: Guarded, chunked: bool) -> None:
    """Clients that send on and read only afterwards still find the answer: none is reset first."""
    before = resident_mb(lingering.pid)
    head = CHUNKED if chunked else announced("/echo", 1_000_000_000)
    chunk = b"10000\r\n" + bytes(65_536) + b"\r\n"

    def upload(_: int) -> Reply:
        with Client(lingering) as client:
            client.send(head)
            for _ in range(60):  # 4 MB, the limit being 1 MB; a reset fails the test here
                client.send(chunk)
            reply = client.reply()
            client.socket.shutdown(socket.SHUT_WR)
            assert client.ended()
            return reply

    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(upload, range(20)))
    assert [(reply.status, reply.code) for reply in replies] == [(413, "body_too_large")] * 20
    awaited(lambda: resident_mb(lingering.pid) < before + 64)


def test_lingering_has_an_end(hasty: Guarded) -> None:
    """A client that never stops is cut off after a while or an amount, whichever comes first."""
    with Client(hasty) as client:
        client.send(CHUNKED)
        assert pour(client, b"100000\r\n" + bytes(1 << 20) + b"\r\n", 1 << 30) < 200 << 20
    with Client(hasty) as client:
        client.send(CHUNKED)
        pour(client, b"100000\r\n" + bytes(1 << 20) + b"\r\n", 3 << 20)
        awaited(lambda: pour(client, b"a", 1) == 0)
    assert ask(hasty).status == 200


def test_a_client_that_leaves_early_costs_nothing(server: Guarded) -> None:
    """Resets and half-closes at every stage leave the server as it was."""
    for request in (b"", HALF_HEAD, HALF_BODY, GOOD, post("/echo", bytes(2 * LIMIT))[:-1]):
        for linger in (struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)):
            with Client(server) as client:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                with contextlib.suppress(OSError):
                    client.send(request)
                    client.socket.shutdown(socket.SHUT_WR)
    assert ask(server).status == 200


@pytest.mark.parametrize(("alone", "least", "most"), [(True, 2, 6), (False, 40, 50)])
def test_a_process_accepts_a_burst_in_few_turns_where_it_is_alone(
    alone: bool, least: int, most: int, tmp_path: Path
) -> None:
    """Behind 40 others a probe would wait for 40 turns, which large uploads make long. Where
    several processes accept, one a turn is left for each, which spreads a burst; libuv does."""
    held, go = tmp_path / "held", tmp_path / "go"
    with Guarded(PATIENT, alone) as server, contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(server))
        client.send(f"GET /turns?held={held}&go={go}&all=41 HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        awaited(held.exists)
        for _ in range(40):
            stack.enter_context(Client(server))
        go.touch()
        assert least <= json.loads(client.reply().body) <= most


def test_a_connection_is_kept_for_many_requests(client: Client) -> None:
    """Bodies of all sizes, whole in one packet or not, one after another."""
    for size in (0, 1, 100, 70_000, 300_000, LIMIT, 5):
        reply = client.asked(post("/echo", bytes(size)))
        assert reply.said == {"length": size}
        assert "connection" not in reply.headers
        client.send(CHUNKED)
        assert client.asked(b"5\r\nhello\r\n0\r\nx-trailer: small\r\n\r\n").said == {"length": 5}


def test_pipelined_requests_are_answered_in_turn(client: Client) -> None:
    """Wherever the packet ends."""
    for cut in range(1, len(GOOD), 9):
        client.send(GOOD + GOOD[:cut])
        assert [client.asked(GOOD[cut:]).status, client.reply().status] == [200, 200]


@pytest.mark.parametrize(
    "last",
    [
        *(post(path, b"abc", "connection: close") for path in ("/echo", "/whole")),
        post("/whole?early=1", b"abc")[:-1],  # or the rest would be taken for the next request
    ],
    ids=["echo", "whole", "before the body"],
)
def test_the_last_answer_says_so_and_is_followed_by_the_end(client: Client, last: bytes) -> None:
    """Where the client asks for that, and where it is answered before its body has come."""
    reply = client.asked(last)
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert client.ended()


def test_a_body_that_has_come_whole_is_there_at_once(client: Client) -> None:
    """Also the next one on the same connection, an empty one, and one in chunks."""
    chunked = b"POST /at-once HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    for body in (b"ab", b"", bytes(4000)):
        assert client.asked(post("/at-once", body)).said == [len(body), -1]
    assert client.asked(chunked + b"3\r\nabc\r\n0\r\n\r\n").said == [3, -1]


def test_a_body_that_is_still_to_come_is_waited_for(server: Guarded, client: Client) -> None:
    """No part of it is taken before the rest is there."""
    request = post("/at-once", b"abcd")
    client.send(request[:-2])
    read_by(server, client)
    assert client.asked(request[-2:]).said == [-1, 4]


def test_a_client_that_leaves_after_its_body_was_taken_is_heard(server: Guarded) -> None:
    """Whoever computes for it may stop."""
    with Client(server) as client:
        client.send(post("/until-gone", b"ab"))
        read_by(server, client)
    awaited(lambda: (state(server)["tasks"], state(server)["left"]) == (1, 2))


def test_a_client_that_had_left_before_anybody_watched_is_heard(server: Guarded) -> None:
    """The answer to its request is given up at once, and no neighbour hears that it left."""
    with Client(server) as neighbour:
        neighbour.send(post("/watched-late", b"ab"))
        with Client(server) as client:
            client.send(post("/watched-late", b"ab"))
            awaited(lambda: state(server)["held"] == 2)
        awaited(lambda: connections(server) == 1)
        ask(server, post("/release", b""))
        assert neighbour.reply().said == {"left": False}
    awaited(lambda: (state(server)["tasks"], state(server)["left"]) == (1, 1))


def test_a_task_that_ended_is_no_longer_counted(server: Guarded) -> None:
    """At shutdown the server waits for those that are left."""
    with Client(server) as client:
        client.send(b"".join(post("/echo", b"a") for _ in range(8)))
        for _ in range(8):
            assert client.reply().status == 200
    assert state(server)["tasks"] == 1


def test_whole_answers_keep_the_connection_and_their_order(client: Client) -> None:
    """Each request gets its own, pipelined with ordinary ones; a large one comes whole."""
    bodies = [b"%d" % n * n for n in range(1, 39)] + [os.urandom(LIMIT)]
    paths = ["/whole" if n % 3 else "/echo" for n in range(len(bodies))]
    client.send(b"".join(post(path, body) for path, body in zip(paths, bodies, strict=True)))
    for path, body in zip(paths, bodies, strict=True):
        assert client.reply().body == (body if path == "/whole" else b'{"length":%d}' % len(body))


def test_a_second_whole_answer_is_refused(client: Client) -> None:
    """One request has one answer, and the connection stays sound."""
    assert client.asked(post("/twice", b"")).body == b"a"
    assert client.asked(GOOD).status == 200


def test_an_answered_request_leaves_no_garbage() -> None:
    """What refers to itself only the collector frees, which costs more than the answer does."""
    with Guarded(PATIENT) as server, Client(server) as client:
        counts = []
        for query in ("", *["?whole=1"] * 20, ""):
            reply = client.asked(post(f"/leftovers{query}", b""))
            counts += [] if query else [reply.said]
        assert counts[-1] <= counts[0] + 1


@pytest.mark.parametrize("request_", [GOOD, HALF_BODY, post("/whole?early=1", bytes(9000))[:-1]])
def test_a_lost_connection_leaves_no_garbage(request_: bytes) -> None:
    """Whether its client left in good order or not, the body it sent is freed at once."""
    with Guarded(PATIENT) as server:
        first = ask(server, post("/leftovers", b"")).said
        for _ in range(20):
            with Client(server) as client:
                client.send(request_)
                read_by(server, client)
        awaited(lambda: ask(server, post("/leftovers", b"")).said <= first + 2)


@pytest.mark.parametrize(
    ("bad", "status"),
    [(b"nonsense\r\n\r\n", 400), (b"GET /?" + b"a" * 300_000, 431), (CHUNKED + b"ZZ\r\n", 400)],
)
def test_an_error_waits_for_the_answers_before_it(client: Client, bad: bytes, status: int) -> None:
    """A bad request behind a good one that is still in work cannot take the good one's answer."""
    assert client.asked(post("/late", b"abc") + bad).said == {"length": 3}
    assert client.reply().status == status
    assert client.ended()


def test_an_application_that_fails_keeps_the_connection_sound(server: Guarded) -> None:
    """uvicorn's own 500 closes the connection, whether or not a body was left unread."""
    for request in (post("/broken", b"abc"), post("/broken", bytes(2 * LIMIT))):
        with Client(server) as client:
            assert client.asked(request).status == 500
            assert client.ended()
    assert ask(server).status == 200


ENDLESS = replace(Patience(), head_seconds=600.0, stall_seconds=600.0)


def test_half_sent_requests_do_not_hold_up_the_end() -> None:
    """SIGTERM with idle, half-sent and kept connections: none is waited for until its limit.

    Half a body is answered 503 with a time to try again.
    """
    with Guarded(ENDLESS) as server, contextlib.ExitStack() as stack:
        sent: list[bytes] = [HALF_BODY, b"", HALF_HEAD, CHUNKED, GOOD]
        clients = [stack.enter_context(Client(server)) for _ in sent * 3]
        for client, request in zip(clients, sent * 3, strict=True):
            client.send(request)
        read_by(server, *clients)
        server.terminate()
        reply = clients[0].reply()
        assert (reply.status, reply.code) == (503, "not_ready")
        assert reply.headers["retry-after"] == "2"


def test_a_request_in_work_is_answered_before_the_end(tmp_path: Path) -> None:
    """And what is pipelined behind it cannot keep the process alive."""
    with Guarded(ENDLESS) as server, Client(server) as client:
        client.send(post(f"/late?after={tmp_path / 'done'}", b"abc"))
        read_by(server, client)
        os.kill(server.pid, signal.SIGTERM)
        awaited(lambda: refuses(server))
        client.send(GOOD + HALF_HEAD)
        (tmp_path / "done").touch()
        reply = client.reply()
        assert reply.said == {"length": 3}
        assert reply.headers["connection"] == "close"
        server.process.join(WAIT)
        assert not server.process.is_alive()


TINY = b"GET /hello HTTP/1.1\r\n\r\n"


def test_a_flood_of_requests_ahead_costs_no_memory_and_holds_up_nobody(hasty: Guarded) -> None:
    """Of 16 MB of tiny requests little is read while their answers are not taken."""
    ask(hasty)
    idle = resident_mb(hasty.pid)
    clients = [Client(hasty) for _ in range(20)]
    for client in clients:
        client.socket.setblocking(False)
    end, highest = time.monotonic() + 2, idle
    while time.monotonic() < end:
        for client in clients:
            with contextlib.suppress(OSError):  # the server reads no more for now, or has ended it
                client.socket.send(TINY * 20_000)
        assert ask(hasty).status == 200
        highest = max(highest, resident_mb(hasty.pid))
    for client in clients:
        client.socket.close()
    assert highest < idle + 50


def test_a_thousand_requests_ahead_in_one_packet_are_all_answered(client: Client) -> None:
    """None is lost and none overtakes, whether its body is read at once or waited for."""
    sizes = [n % 50 for n in range(500)]
    client.send(b"".join(post("/echo", bytes(n)) + post("/at-once", bytes(n)) for n in sizes))
    for size in sizes:
        assert client.reply().said == {"length": size}
        assert max(client.reply().said) == size
    assert client.asked(GOOD).body == b'"hello"'


def test_a_large_body_behind_requests_ahead_comes_whole(client: Client) -> None:
    """What waited as bytes goes to the request it belongs to, and so does what is read later."""
    client.send(TINY * 300 + post("/echo", bytes(900_000)) + TINY * 300)
    replies = [client.reply().body for _ in range(601)]
    assert json.loads(replies[300])["length"] == 900_000
    assert replies.count(b'"hello"') == 600


def test_no_request_is_begun_while_the_answers_before_it_are_not_taken() -> None:
    """Each of these answers has 30 MB; one is written, and the next wait for the client."""
    with Guarded(PATIENT) as server, Client(server) as client:
        idle = resident_mb(server.pid)
        client.send(b"GET /large HTTP/1.1\r\n\r\n" * 8)
        end = time.monotonic() + LONG
        while time.monotonic() < end:
            assert ask(server).status == 200
        assert resident_mb(server.pid) < idle + 100
        for _ in range(8):
            assert len(client.reply().body) == 30 << 20


def test_a_last_answer_that_is_taken_late_comes_whole(server: Guarded) -> None:
    """The connection is closing by then, and is not read any more."""
    with Client(server) as client:
        client.send(b"GET /large HTTP/1.1\r\nconnection: close\r\n\r\n" + TINY * 100)
        read_by(server, client)
        assert len(client.reply().body) == 30 << 20
        assert client.reset()
    assert ask(server).status == 200


OFFERS = {
    "h2c": ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABk"),
    "websocket": ("connection: keep-alive, upgrade", "upgrade: websocket"),
    "two lines": ("connection: keep-alive", "Connection: upgrade", "Upgrade: a", "upgrade: b"),
}
SPELT = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("late", [False, True])
def test_an_offered_upgrade_is_ignored_and_the_body_read(
    server: Guarded, client: Client, offer: str, late: bool
) -> None:
    """The body is not taken for a request, however much it looks like one or how late it comes."""
    request = post("/at-once", SPELT, *OFFERS[offer])
    client.send(request[: -len(SPELT)])
    if late:
        read_by(server, client)
    first = client.asked(SPELT + GOOD)
    assert first.status == 200, first
    assert sum(first.said) in (len(SPELT), len(SPELT) - 1)
    assert client.reply().body == b'"hello"'


@pytest.mark.parametrize("offer", OFFERS)
def test_an_offered_upgrade_with_a_chunked_body_is_ignored(client: Client, offer: str) -> None:
    """In one packet, and byte by byte."""
    lines = ["POST /echo HTTP/1.1", "host: x", *OFFERS[offer], "transfer-encoding: chunked", "", ""]
    request = "\r\n".join(lines).encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(SPELT), SPELT)
    client.send(request * 3)
    for byte in request:
        client.send(bytes([byte]))
    client.send(GOOD)
    replies = [client.reply().said for _ in range(5)]
    assert replies == [{"length": len(SPELT)}] * 4 + ["hello"]


def test_many_upgrades_ahead_are_answered_in_turn(client: Client) -> None:
    """Each is ignored where it stands; the requests behind it are those that were sent."""
    offer = post("/echo", b"", *OFFERS["h2c"])
    client.send((offer + TINY) * 200)
    for _ in range(200):
        assert client.reply().said == {"length": 0}
        assert client.reply().body == b'"hello"'


@pytest.mark.parametrize(
    "hiding",
    [
        post("/echo", SPELT, "content-length: 5", *OFFERS["h2c"]),
        post("/echo", SPELT, "transfer-encoding: chunked", *OFFERS["h2c"]),
        b"CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n" + GOOD,
    ],
    ids=["two lengths", "a length and chunks", "a tunnel"],
)
def test_neither_an_upgrade_nor_a_tunnel_hides_what_follows(client: Client, hiding: bytes) -> None:
    """What the parser refuses without the offer, it refuses with it, and reads nothing more."""
    assert client.asked(hiding).code == "invalid_http"
    assert client.reset()


@pytest.mark.parametrize("target", ["http://:x", "/%zz\x80", "*", "http://a:b@c:99999999/"])
def test_an_upgrade_does_not_hide_a_strange_target(server: Guarded, target: str) -> None:
    """With the offer a request reads the answer that it reads without."""
    statuses = []
    for offer in ((), OFFERS["h2c"]):
        lines = [f"GET {target} HTTP/1.1", "host: x", "connection: close", *offer, "", ""]
        statuses.append(ask(server, "\r\n".join(lines).encode("latin-1")).status)
    assert statuses[0] == statuses[1]
    assert statuses[0] in (400, 500)  # this application has no route for what is a target


CROWDED = replace(PATIENT, bodies_bytes=2 << 20, linger_seconds=WAIT)


def test_the_slowest_bodies_make_room_for_others() -> None:
    """Two hold 1.8 of 2 MB and drip: once that is seen, one ends, and a good body passes."""
    with Guarded(CROWDED) as server, contextlib.ExitStack() as stack:
        drips = [stack.enter_context(Client(server)) for _ in range(2)]
        for client in drips:
            client.send(announced("/echo", LIMIT) + bytes(900_000))
        end, status = time.monotonic() + WAIT, 0
        while status != 200 and time.monotonic() < end:
            for client in drips:
                client.send(b"a")
            with Client(server) as good:
                with contextlib.suppress(OSError):  # refused before it is sent
                    good.send(post("/echo", bytes(900_000)))
                status = good.reply().status
        assert status == 200
        ready, _, _ = select.select([client.socket for client in drips], [], [], WAIT)
        refused = next(client for client in drips if client.socket in ready).reply()
        assert (refused.status, refused.code) == (429, "overloaded")
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["connection"] == "close"


def test_beyond_the_bound_the_large_are_refused_and_the_small_are_served() -> None:
    """Whole bodies in work cannot be taken back: the next large one is told to come again."""
    with Guarded(CROWDED) as server, contextlib.ExitStack() as stack:
        at_work = [stack.enter_context(Client(server)) for _ in range(2)]
        for client in at_work:
            client.send(post("/hold", bytes(1_000_000)))
        awaited(lambda: state(server)["held"] == 2)
        with Client(server) as late:
            with contextlib.suppress(OSError):
                late.send(post("/echo", bytes(1_000_000)))
            assert late.reply().code == "overloaded"
        assert ask(server, post("/echo", bytes(1000))).status == 200
        ask(server, post("/release", b""))
        for client in at_work:
            assert client.reply().said == "released"
        assert ask(server, post("/echo", bytes(1_000_000))).status == 200


def test_a_body_that_came_slowly_and_whole_is_answered_and_its_connection_kept() -> None:
    """What was slow at the last sweep may be whole by now: nothing is said that nobody asked."""
    with Guarded(replace(CROWDED, sweep_seconds=1.0)) as server, Client(server) as client:
        client.send(announced("/echo", LIMIT) + bytes(899_000))
        awaited(lambda: state(server)["slow"] == 1)
        assert client.asked(bytes(LIMIT - 899_000)).said == {"length": LIMIT}
        with Client(server) as first, Client(server) as second:
            for holder in (first, second):  # within a sweep, so that the body still counts as slow
                holder.send(post("/hold", bytes(1_000_000)))
            awaited(lambda: state(server)["held"] == 2)
            assert ask(server, post("/echo", bytes(1_000_000))).code == "overloaded"
        assert client.asked(GOOD).body == b'"hello"'


def test_an_answered_body_makes_room() -> None:
    """On one connection far more than the bound may come, one body after the other."""
    with Guarded(CROWDED) as crowded, Client(crowded) as client:
        for _ in range(8):
            assert client.asked(post("/echo", bytes(1_000_000))).said == {"length": 1_000_000}
        client.send(post("/echo", bytes(1_000_000)) * 8)
        for _ in range(8):
            assert client.reply().said == {"length": 1_000_000}


def test_readers_that_take_nothing_are_cut_when_there_are_too_many() -> None:
    """Each holds 30 MB of answer: beyond the bound the slowest go, and a good reader is served."""
    patience = replace(PATIENT, answers_bytes=70 << 20)
    with Guarded(patience) as server:
        clients = [Client(server) for _ in range(4)]
        for client in clients:
            client.send(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
            assert select.select([client.socket], [], [], WAIT)[0]
            time.sleep(1.1 * GRACE)  # until it can be called slow
        for _ in range(3):
            assert len(ask(server, b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").body) == 30 << 20
        assert resident_mb(server.pid) < 200
        cut = 0
        for client in clients:
            try:
                cut += len(client.reply().body) != 30 << 20
            except (EOFError, ConnectionResetError):
                cut += 1
            client.socket.close()
        assert 2 <= cut <= 4


class Wire(asyncio.Transport):
    """Remembers what was done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[bytes] = []

    def write(self, data: Any) -> None:
        self.done.append(bytes(data))

    def is_closing(self) -> bool:
        return False


def test_the_answers_of_a_turn_leave_one_after_the_other_and_none_is_lost_for_another() -> None:
    """In one write for each; one that cannot be written to harms no other, nor the next turn."""

    class Broken(Wire):
        def write(self, data: Any) -> None:
            raise OSError("of the test")

    async def main() -> list[list[bytes]]:
        shared = _Shared(ServerState(), asyncio.get_running_loop(), Patience())
        wires = [Wire(), Broken(), Wire()]
        transports = [_TransportWrapper(wire, shared, bool) for wire in wires]
        for word in (b"a", b"b"):
            for transport in transports * 2:
                transport.write_soon(word)
            await asyncio.sleep(0)
        return [wire.done for wire in wires]

    assert asyncio.run(main()) == [[b"aa", b"bb"], [], [b"aa", b"bb"]]
