from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ResponseError

from bench.rig.redis_server import RedisServer
from cache.redis.address import Address
from cache.redis.connection import Connection, Lost, packed
from cache.redis.replies import Malformed
from tests.support.patience import until
from tests.support.scripted import scripted

pytestmark = pytest.mark.anyio

MGET = packed(b"MGET", b"sl2:a", b"sl2:b")
TWO = b"*2\r\n$1\r\nx\r\n$-1\r\n"


async def dialled(url: str, gone: list[Connection], timeout: float = 60.0) -> Connection:
    return await Address.of(url).dial(lambda: Connection(timeout, gone.append), None)


async def test_a_question_is_answered_with_bytes_and_nothing(server: RedisServer) -> None:
    """A value is bytes, a missing key is None, and the connection serves the next question."""
    server.client().set(b"sl2:a", b"value")
    gone: list[Connection] = []
    connection = await dialled(server.url, gone)
    for _ in range(2):
        assert await connection.ask(MGET, 2) == [b"value", None]
    assert gone == []
    connection.abort()
    await until(lambda: gone == [connection])


async def test_a_reply_may_come_in_any_pieces() -> None:
    """TCP keeps no borders: byte by byte is a reply as well."""
    async with scripted(*(TWO[i : i + 1] for i in range(len(TWO)))) as it:
        assert await (await dialled(it.url, [])).ask(MGET, 2) == [b"x", None]


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(TWO + TWO, id="two replies to one question"),
        pytest.param(TWO + b"*", id="the beginning of another"),
        pytest.param(b"*3\r\n", id="more values than were asked for"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", id="not Redis"),
        pytest.param(b"*99999999999999999999\r\n", id="a length that no number holds"),
    ],
)
async def test_what_is_not_one_reply_ends_the_connection(reply: bytes) -> None:
    """What follows it could be another's value, so nothing of it is served."""
    gone: list[Connection] = []
    async with scripted(reply) as it:
        with pytest.raises(Malformed):
            await (await dialled(it.url, gone)).ask(MGET, 2)
        await until(lambda: len(gone) == 1)


async def test_bytes_that_nobody_asked_for_end_the_connection() -> None:
    """They would be taken for the reply to the next question."""
    gone: list[Connection] = []
    async with scripted(TWO, greeting=TWO) as it:
        await dialled(it.url, gone)
        await until(lambda: len(gone) == 1)


async def test_half_a_reply_is_none() -> None:
    """Redis died in the middle of a value."""
    async with scripted(TWO[:9], hangs_up=True) as it:
        with pytest.raises(Lost):
            await (await dialled(it.url, [])).ask(MGET, 2)


async def test_a_reply_that_is_late_ends_the_connection() -> None:
    """It would be taken for the reply to the next question."""
    gone: list[Connection] = []
    async with scripted() as it:
        with pytest.raises(TimeoutError):
            await (await dialled(it.url, gone, timeout=0.1)).ask(MGET, 2)
        await until(lambda: len(gone) == 1)


async def test_an_ended_connection_says_so_when_asked() -> None:
    """Its owner may ask before it hears of the end, and still gets an answer."""
    gone: list[Connection] = []
    async with scripted(TWO) as it:
        connection = await dialled(it.url, gone)
        it.hang_up()
        await until(lambda: len(gone) == 1)
        with pytest.raises(Lost):
            await connection.ask(MGET, 2)


async def test_an_aborted_connection_answers_who_waits() -> None:
    """`abort` is how a question is given up."""
    async with scripted() as it:
        connection = await dialled(it.url, [])
        asked = asyncio.ensure_future(connection.ask(MGET, 2))
        connection.abort()
        with pytest.raises(Lost):
            await asked


async def test_an_error_of_redis_is_a_reply_without_the_words_of_the_command(
    server: RedisServer,
) -> None:
    """A wrong password is answered with an error that does not hold it, and asking goes on."""
    connection = await dialled(server.url, [])
    refused = await connection.ask(packed("AUTH", "nobody", "hunter2"))
    assert isinstance(refused, ResponseError)
    assert "hunter2" not in str(refused)
    assert await connection.ask(packed("SELECT", "1")) == b"OK"
    connection.abort()
