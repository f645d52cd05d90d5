import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bench.rig.fault_proxy import Fault, FaultProxy
from bench.rig.redis_server import RedisServer
from cache.redis.address import Address
from cache.redis.reader import Connection, PooledReader, Values
from tests.support.patience import settled, until
from tests.support.scripted import scripted

pytestmark = pytest.mark.anyio

KEYS = [b"sl2:%d" % number for number in range(50)]
VALUES = [b"value of " + key for key in KEYS]
PATIENT = 10.0


@asynccontextmanager
async def opened(
    url: str, why: Callable[[str], None] = lambda _: None, **options: float
) -> AsyncIterator[PooledReader]:
    times: Any = {"timeout": PATIENT, "connect_timeout": PATIENT, **options}
    it = PooledReader(Address.of(url), **times, why=why)
    try:
        yield it
    finally:
        await it.close()


async def asked(it: PooledReader, keys: list[bytes]) -> Values | None:
    """What `told` is called with, which must be once."""
    told: list[Values | None] = []
    it.ask(keys, told.append)
    await until(lambda: bool(told), 30)
    await asyncio.sleep(0)
    assert len(told) == 1
    return told[0]


def fill(server: RedisServer) -> None:
    with server.client() as client:
        client.mset(dict(zip(KEYS, VALUES, strict=True)))


@pytest.fixture
async def proxy(server: RedisServer) -> AsyncIterator[FaultProxy]:
    """In front of a Redis that has the keys."""
    fill(server)
    async with FaultProxy(server.url, delay=0.6) as running:
        yield running


def connections(server: RedisServer) -> int:
    with server.client() as client:
        return sum(one["cmd"] == "mget" for one in client.client_list())


async def test_one_after_another_needs_one_connection(proxy: FaultProxy) -> None:
    """Opened once and kept. Values come in the order of the keys, None for what is not there."""
    async with opened(proxy.url) as it:
        for key, value in zip(KEYS, VALUES, strict=True):
            keys = [KEYS[7], b"sl2:absent", key]
            assert await asked(it, keys) == [VALUES[7], None, value]
        assert proxy.accepted == 1


async def test_questions_side_by_side_do_not_wait_for_each_other(server: RedisServer) -> None:
    """Each under way has a connection of its own, and each gets its own values."""
    fill(server)
    async with opened(server.url) as it:
        for _ in range(3):
            ends = await asyncio.gather(*(asked(it, [key]) for key in KEYS[:8]))
            assert ends == [[value] for value in VALUES[:8]]
        assert connections(server) == 8


async def test_a_connection_that_went_stale_is_replaced() -> None:
    """Redis restarted since: the question is asked again on a new one."""
    with RedisServer() as own:
        async with opened(own.url) as it:
            assert await asked(it, KEYS[:2]) == [None, None]
            own.restart()
            fill(own)
            assert await asked(it, KEYS[:2]) == VALUES[:2]


async def test_a_connection_lost_with_a_question_is_made_good_once() -> None:
    """A second loss is a failure, and nobody asks for ever."""
    async with scripted(b"*1\r\n$5\r\nva", hangs_up=True) as it, opened(it.url) as asker:
        assert await asked(asker, KEYS[:1]) is None
        assert it.accepted == 2


async def test_a_late_reply_is_a_failure_and_not_asked_for_again(proxy: FaultProxy) -> None:
    """The connection is given up with it, and the next question finds a healthy one."""
    async with opened(proxy.url, timeout=1.0) as it:
        proxy.fault = Fault.BLACKHOLE
        assert await asked(it, KEYS[:1]) is None
        assert proxy.accepted == 1
        proxy.fault = Fault.PASS
        assert await asked(it, KEYS[:1]) == VALUES[:1]
        assert proxy.accepted == 2


async def test_a_connection_that_opened_too_late_serves_the_next_question(
    server: RedisServer, proxy: FaultProxy
) -> None:
    """A greeting slower than the time for a question would otherwise never be got over."""
    server.command("ACL", "SETUSER", "slow", "on", ">word", "~sl2:*", "+mget")
    proxy.fault = Fault.DELAY
    async with opened(proxy.url.replace("redis://", "redis://slow:word@"), timeout=0.3) as it:
        assert await asked(it, KEYS[:1]) is None
        proxy.fault = Fault.PASS
        assert await asked(it, KEYS[:1]) == VALUES[:1]
    assert proxy.accepted == 1


@pytest.mark.parametrize(
    ("reply", "hangs_up", "reason"),
    [
        (b"", False, "silent"),
        (b"", True, "silent"),
        (b"-WRONGPASS no\r\n", False, "wrong_password"),
    ],
    ids=["unanswered", "cut off", "refused"],
)
async def test_a_greeting_that_fails_is_a_failure(
    reply: bytes, hangs_up: bool, reason: str
) -> None:
    """Whoever accepts and says nothing to it is not there; and the reason is told first."""
    reasons: list[str] = []
    async with scripted(reply, hangs_up=hangs_up) as it:
        url = it.url.replace("redis://", "redis://:word@")
        async with opened(url, reasons.append, connect_timeout=0.2) as asker:
            assert await asked(asker, KEYS[:1]) is None
    assert reasons == [reason]


TWO = b"*2\r\n$1\r\nx\r\n$-1\r\n"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        pytest.param(b"-NOPERM no\r\n", "not_permitted", id="an error"),
        pytest.param(b"*1\r\n$1\r\nx\r\n", "not_redis", id="one too few"),
        pytest.param(b"*3\r\n$1\r\nx\r\n$-1\r\n$-1\r\n", "not_redis", id="one too many"),
        pytest.param(b"+OK\r\n", "not_redis", id="no list"),
        pytest.param(TWO + TWO, "not_redis", id="two replies to one question"),
        pytest.param(TWO + b"*", "not_redis", id="the beginning of another"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", "not_redis", id="not Redis"),
    ],
)  # fmt: skip
async def test_what_is_not_one_reply_of_that_form_is_a_failure(reply: bytes, reason: str) -> None:
    """Nothing of it is served, and its connection is not used again."""
    reasons: list[str] = []
    async with scripted(reply) as it, opened(it.url, reasons.append, timeout=1.0) as asker:
        assert await asked(asker, KEYS[:2]) is None
        await settled()
        assert await asked(asker, KEYS[:2]) is None
        assert it.accepted == 2
    assert reasons == [reason, reason]


async def test_bytes_that_nobody_asked_for_end_a_connection_which_says_so_when_asked() -> None:
    """They would be taken for the next reply; its owner may ask before it hears of the end."""
    gone: list[Connection] = []
    heard: list[Any] = []
    async with scripted(TWO, greeting=TWO) as it:
        connection = Connection(gone.append)
        await Address.of(it.url).dial(connection, None)
        await until(lambda: gone == [connection])
        connection.ask(b"PING\r\n", heard.append)
        assert heard == [], "the reply may not come within the call"
        await until(lambda: bool(heard))
    assert isinstance(heard[0], Exception)


async def test_an_error_in_place_of_a_value_is_no_value() -> None:
    """As a proxy in front of several servers says it; the other values are whole. In any pieces:
    TCP keeps no borders."""
    reply = b"*3\r\n$1\r\nx\r\n-upstream failure\r\n$-1\r\n"
    pieces = [reply[i : i + 1] for i in range(len(reply))]
    async with scripted(*pieces) as it, opened(it.url) as asker:
        assert await asked(asker, KEYS[:3]) == [b"x", None, None]
        assert await asked(asker, KEYS[:3]) == [b"x", None, None]
        assert it.accepted == 1


@pytest.mark.parametrize(
    ("password", "who"), [(">p@ss", "own:p%40ss"), ("nopass", "own")], ids=["password", "none"]
)
async def test_user_password_and_database_are_said_before_the_first_question(
    password: str, who: str
) -> None:
    """In this order, as a server that wants a password answers nothing else before. A user without
    one is named too: look-ups would be those of the default user, who may be off."""
    with RedisServer() as own:
        own.command("ACL", "SETUSER", "own", "on", password, "~sl2:*", "+mget", "+select")
        with own.client() as client:
            client.select(2)
            client.set(KEYS[0], VALUES[0])
        own.command("ACL", "SETUSER", "default", "-mget")
        async with opened(f"{own.url.replace('redis://', f'redis://{who}@')}/2") as it:
            assert await asked(it, KEYS[:1]) == VALUES[:1]


async def test_certificates_that_are_missing_are_a_failure() -> None:
    """A look-up raises nothing, whatever the URL names."""
    async with opened("rediss://127.0.0.1:1?ssl_ca_certs=/nowhere/ca.pem") as it:
        assert await asked(it, KEYS[:1]) is None


async def test_closing_answers_who_waits(proxy: FaultProxy) -> None:
    """A question under way at shutdown is told that it failed."""
    proxy.fault = Fault.BLACKHOLE
    told: list[Values | None] = []
    async with opened(proxy.url) as it:
        it.ask(KEYS[:1], told.append)
        await until(lambda: proxy.accepted == 1)
    await until(lambda: told == [None])
    assert proxy.accepted == 1


async def test_a_reply_belongs_to_its_question_whatever_is_lost(proxy: FaultProxy) -> None:
    """While connections are cut at odd moments: a value or a failure, and never another's."""
    async with opened(proxy.url) as it:

        async def cut() -> None:
            for fault in (Fault.HALF, Fault.PASS, Fault.RESET, Fault.PASS) * 10:
                proxy.fault = fault
                await asyncio.sleep(0.01)

        cutting = asyncio.create_task(cut())
        right = failed = 0
        while not cutting.done() or right == 0:
            spans = [(n, n + 1 + n % 5) for n in range(0, 40, 5)]
            ends = await asyncio.gather(*(asked(it, KEYS[a:b]) for a, b in spans))
            for (a, b), end in zip(spans, ends, strict=True):
                assert end is None or end == VALUES[a:b]
                right += end is not None
                failed += end is None
        assert right > 0
        assert failed > 0
