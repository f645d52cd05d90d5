"""HTTP by hand, against a server that does not always keep to it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest
import uvloop

from bench.load.connection import Address, Connection, Fault, Pool, Reply, header
from bench.load.route import Route
from bench.load.workload import Workload
from bench.rig.port import free_port
from tests.support.echo_server import Behaviour, EchoServer, well
from tests.support.patience import until

T = TypeVar("T")
TEXTS = Workload()
Run = Callable[[Coroutine[Any, Any, Any]], Any]


def request_to(address: Address, number: int = 0) -> bytes:
    """A request for one text."""
    return Route(address).request(TEXTS.job(1, number))


def asked(
    behave: Callable[[int], Behaviour], many: int = 1, timeout: float = 30.0
) -> list[Reply | str]:
    """What comes of requests on one connection, faults by name."""

    async def ask(address: Address) -> list[Reply | str]:
        found: list[Reply | str] = []
        connection = await Connection.to(address, 30)
        for number in range(many):
            try:
                found.append(await connection.ask(request_to(address, number), timeout))
            except Fault as fault:
                found.append(str(fault))
        return found

    with EchoServer(behave) as server:
        return uvloop.run(ask(Address.of(server.url)))


def pooled(
    width: int,
    use: Callable[[Pool, Address], Awaitable[T]],
    behave: Callable[[int], Behaviour] = well,
) -> tuple[T, int]:
    """What `use` gives, and the connections that were opened."""

    async def main(address: Address) -> tuple[T, int]:
        pool = Pool(address, width)
        found = await use(pool, address)
        pool.close()
        return found, pool.opened

    with EchoServer(behave) as server:
        return uvloop.run(main(Address.of(server.url)))


async def three(pool: Pool, address: Address) -> list[int]:
    """The statuses of requests one after another."""
    return [(await pool.ask(request_to(address, n), 30)).status for n in range(3)]


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://localhost:8080", Address("localhost", 8080)),
        ("http://localhost:8080/", Address("localhost", 8080)),
        ("http://127.0.0.1", Address("127.0.0.1", 80)),
        ("https://127.0.0.1/api/", Address("127.0.0.1", 443, tls=True, prefix="/api")),
    ],
)
def test_an_address_is_read_from_a_url(url: str, address: Address) -> None:
    """Port and prefix may be left out."""
    assert Address.of(url) == address


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://127.0.0.1", "http://", "", "http://a:b"])
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ValueError):  # noqa: PT011 - urllib has sentences of its own
        Address.of(url)


FRAMES = {
    "length": Behaviour(),
    "chunks": Behaviour(chunked=True),
    "http-1.0": Behaviour(old=True),
    "to-the-end": Behaviour(unmeasured=True),
    "100-continue": Behaviour(early=True),
    "100-and-chunks": Behaviour(early=True, chunked=True),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_body_is_read_however_it_is_framed(name: str) -> None:
    """The same JSON each time."""
    (reply,) = asked(lambda _: FRAMES[name])
    assert isinstance(reply, Reply)
    assert reply.status == 200
    assert reply.body.startswith(b'{"object"')
    assert reply.body.endswith(b"}")
    assert reply.first_byte <= reply.done


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_refused_connection_is_a_fault(run: Run) -> None:
    """Nobody listens there; a pool of one can be refused again and again without getting stuck."""

    async def connect() -> None:
        address = Address("127.0.0.1", free_port())
        pool = Pool(address, 1)
        await pool.fill(3, 30)  # does no harm: the requests will say so
        for _ in range(3):
            with pytest.raises(Fault, match="refused"):
                await pool.ask(request_to(address), 30)
        assert pool.opened == 0

    run(connect())


def test_a_pool_opens_no_more_connections_than_it_may() -> None:
    """The rest wait their turn, and all are served."""

    async def use(pool: Pool, address: Address) -> int:
        asking = (pool.ask(request_to(address, n), 30) for n in range(20))
        return [reply.status for reply in await asyncio.gather(*asking)].count(200)

    assert pooled(3, use, lambda _: Behaviour(delay=0.01)) == (20, 3)


def test_a_connection_that_lay_idle_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may be hanging up on it just now."""
    monkeypatch.setattr("bench.load.connection.STALE", -1.0)
    assert pooled(1, three) == ([200] * 3, 3)


def test_a_cancelled_request_takes_its_connection_with_it() -> None:
    """Its answer would be read by the next one."""

    async def main(server: EchoServer) -> bool:
        address = Address.of(server.url)
        connection = await Connection.to(address, 30)
        task = asyncio.create_task(connection.ask(request_to(address), 30))
        await until(lambda: len(server.heads) > 0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return connection.open

    with EchoServer(lambda _: Behaviour(endless=True)) as server:
        assert uvloop.run(main(server)) is False


@pytest.mark.parametrize(
    ("name", "value"), [(b"x-cache", b"miss,hit-l1"), (b"age", b"0"), (b"cache", b""), (b"x", b"")]
)
def test_a_header_is_found_by_its_whole_name(name: bytes, value: bytes) -> None:
    """Not by a part of another's."""
    head = b"http/1.1 200 ok\r\nx-cache:  miss,hit-l1 \r\nage:0\r\n"
    assert header(head, name) == value


def test_a_body_of_many_packets_is_read_whole() -> None:
    """A batch of hundreds of vectors does not come in one piece, nor does it leave in one."""

    async def use(pool: Pool, address: Address) -> Reply:
        route = Route(address, form="raw")
        return await pool.ask(route.request(Workload(batch=5000).job(1, 0)), 30)

    reply, _ = pooled(1, use)
    assert header(reply.head, b"x-embedding-shape") == b"5000,8"
    assert len(reply.body) == 5000 * 8 * 4


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_head_that_does_not_end_is_given_up(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past a bound it is no HTTP; below it the rest may still come."""
    monkeypatch.setattr(
        "tests.support.echo_server._framed", lambda *_: b"HTTP/1.1 200 " + b"x" * size
    )
    assert asked(well, timeout=0.3) == ["malformed" if size > 65_536 else "timeout"]
