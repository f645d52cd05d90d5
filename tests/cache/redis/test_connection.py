from typing import Any

import pytest
from redis.exceptions import ConnectionError as NotConnected

from bench.rig.redis_server import RedisServer
from cache.redis.address import Address
from cache.redis.connection import LOST, NOT_REDIS, Connection, packed
from tests.support.patience import until
from tests.support.scripted import scripted

pytestmark = pytest.mark.anyio

MGET = packed(b"MGET", b"sl2:a", b"sl2:b")
TWO = b"*2\r\n$1\r\nx\r\n$-1\r\n"


class Owner:
    """What came of a connection."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.gone: list[Connection] = []

    async def dial(self, url: str) -> Connection:
        return await Address.of(url).dial(lambda: Connection(self.gone.append), None)

    async def ask(self, connection: Connection) -> list[Any]:
        connection.ask(MGET, self.heard.append)
        assert self.heard == [], "the reply may not come within the call"
        await until(lambda: bool(self.heard))
        return self.heard


async def test_a_reply_may_come_in_any_pieces() -> None:
    """TCP keeps no borders: byte by byte is a reply as well."""
    owner = Owner()
    async with scripted(*(TWO[i : i + 1] for i in range(len(TWO)))) as it:
        assert await owner.ask(await owner.dial(it.url)) == [[b"x", None]]


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(TWO + TWO, id="two replies to one question"),
        pytest.param(TWO + b"*", id="the beginning of another"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", id="not Redis"),
        pytest.param(b"*99999999999999999999\r\n", id="a length that no number holds"),
    ],
)
async def test_what_is_not_one_reply_ends_the_connection(reply: bytes) -> None:
    """What follows it could be another's value, so nothing of it is served."""
    owner = Owner()
    async with scripted(reply) as it:
        assert await owner.ask(await owner.dial(it.url)) == [NOT_REDIS]
        await until(lambda: len(owner.gone) == 1)


async def test_bytes_that_nobody_asked_for_end_the_connection() -> None:
    """They would be taken for the reply to the next question."""
    owner = Owner()
    async with scripted(TWO, greeting=TWO) as it:
        await owner.dial(it.url)
        await until(lambda: len(owner.gone) == 1)
    assert owner.heard == []


async def test_an_ended_connection_says_so_when_asked() -> None:
    """Its owner may ask before it hears of the end, and still gets an answer."""
    owner = Owner()
    async with scripted(TWO) as it:
        connection = await owner.dial(it.url)
        it.hang_up()
        await until(lambda: len(owner.gone) == 1)
        assert await owner.ask(connection) == [LOST]


async def test_a_greeting_that_is_refused_raises_without_its_words(server: RedisServer) -> None:
    """A wrong password ends in an error that does not hold it."""
    owner = Owner()
    connection = await owner.dial(server.url)
    with pytest.raises(NotConnected, match="AUTH was refused") as caught:
        await connection.call("AUTH", "nobody", "hunter2")
    assert "hunter2" not in str(caught.value)
    await connection.call("SELECT", "1")
    connection.abort()


async def test_a_greeting_that_is_cut_off_raises() -> None:
    """A server that hangs up instead of answering has refused."""
    owner = Owner()
    async with scripted(hangs_up=True) as it:
        connection = await owner.dial(it.url)
        with pytest.raises(NotConnected, match="SELECT"):
            await connection.call("SELECT", "1")
