import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from unittest.mock import patch

import pytest

from bench.rig.redis_server import RedisServer
from cache.redis.address import Address
from cache.redis.breaker import Breaker, Circuit
from cache.redis.writer import Item, Writer
from cache.trouble import Trouble
from tests.support.patience import settled, until
from tests.support.recorder import Recorder

pytestmark = pytest.mark.anyio

DAY = 86_400


@asynccontextmanager
async def writing(
    url: str, recorder: Recorder, *, ttl: float = 30 * DAY, limit: int = 4096
) -> AsyncIterator[Writer]:
    client = Address.of(url).connect(timeout=2, connect_timeout=10, connections=2)
    writer = Writer(Breaker(), Trouble(recorder), recorder, ttl=ttl, limit=limit)
    writer.start(client)
    try:
        yield writer
    finally:
        await writer.close()
        await client.aclose()


def keys_of(numbers: range) -> list[bytes]:
    return [b"sl2:%d" % number for number in numbers]


def put(writer: Writer, many: int) -> list[bytes]:
    keys = keys_of(range(many))
    for key in keys:
        writer.put(key, b"value")
    return keys


async def test_every_life_is_thirty_days_give_or_take_a_tenth(server: RedisServer) -> None:
    """What was written in one hour must not expire in one hour."""
    recorder = Recorder()
    async with writing(server.url, recorder) as writer:
        keys = put(writer, 300)
        await writer.flush()
    lives = [*map(server.client().ttl, keys)]
    assert min(lives) >= 27 * DAY - 60
    assert max(lives) <= 33 * DAY
    assert max(lives) - min(lives) > 3 * DAY
    assert len(set(lives)) > 250


async def test_a_life_is_never_zero(server: RedisServer) -> None:
    """Redis refuses an expiry of 0 seconds; a tiny setting means one second."""
    recorder = Recorder()
    async with writing(server.url, recorder, ttl=0.1) as writer:
        put(writer, 1)
        await writer.flush()
    assert (recorder.kept, recorder.lost) == (1, 0)


async def test_a_full_queue_drops_its_oldest_and_counts_them(server: RedisServer) -> None:
    """Under pressure the newest vectors are kept, and the queue is never longer than its limit."""
    recorder = Recorder()
    async with writing(server.url, recorder, limit=10) as writer:
        put(writer, 25)  # no await: nothing can be written meanwhile
        assert len(writer) == 10
        assert recorder.lost == 15
        await writer.flush()
    assert set(server.client().keys("*")) == {*keys_of(range(15, 25))}
    assert max(recorder.depths) == 10


async def test_closing_writes_what_waits_and_takes_no_more(server: RedisServer) -> None:
    """A drain loses nothing that Redis would take, and late results are counted as dropped."""
    recorder = Recorder()
    async with writing(server.url, recorder) as writer:
        put(writer, 200)
        await writer.close()
        assert (recorder.kept, recorder.lost, recorder.depths[-1]) == (200, 0, 0)
        writer.put(b"sl2:late", b"value")
        assert (recorder.lost, len(writer)) == (1, 0)
    assert server.client().dbsize() == 200


async def test_a_flush_and_a_closing_end_in_time_although_redis_hangs() -> None:
    """A shutdown waits a second for its cache, not for ever, and says what was not written. A drain
    that takes too long is cut off, and the writer ends with it."""
    with RedisServer() as own:
        async with writing(own.url, Recorder()) as writer:
            await writer.flush()
            own.pause()
            put(writer, 1)
            assert await asyncio.wait_for(writer.flush(0.2), 60) == 1
            task = writer._task
            assert task is not None
            closing = asyncio.create_task(writer.close(60.0))
            await settled()
            closing.cancel()
            await asyncio.wait([closing, task])
            own.resume()


async def test_a_writer_ends_although_its_client_swallows_the_cancellation(
    server: RedisServer,
) -> None:
    """As redis-py does that has just connected."""

    async def deaf(batch: Sequence[Item]) -> list[Any]:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return [True] * len(batch)

    async with writing(server.url, Recorder()) as writer:
        with patch.object(writer, "_send", deaf):
            put(writer, 1)
            await until(lambda: writer._sending.locked())
            await asyncio.wait_for(writer.close(0.0), 30)


@pytest.mark.parametrize(("limit", "kept"), [(4096, 200), (50, 50)])
async def test_what_met_an_outage_is_written_after_it(limit: int, kept: int) -> None:
    """A batch that could not be sent goes back to the queue, in its order, and out later. What
    comes back to a full queue makes no room for itself: the oldest are dropped."""
    recorder = Recorder()
    with RedisServer() as own:
        async with writing(own.url, recorder, limit=limit) as writer:
            own.kill()
            for i in range(200):
                writer.put(b"sl2:%d" % i, b"value")
                await asyncio.sleep(0)
            await until(lambda: writer._breaker.state is Circuit.OPEN and len(writer) == kept)
            assert (recorder.kept, recorder.lost) == (0, 200 - kept)
            own.start()
            await until(lambda: recorder.kept == kept)
        assert (
            own.client().dbsize() == own.client().exists(*keys_of(range(200 - kept, 200))) == kept
        )


async def test_what_redis_refuses_is_dropped_and_counted() -> None:
    """A server that is full and evicts nothing refuses; offering again would change nothing."""
    recorder = Recorder()
    with RedisServer("--maxmemory", "1kb", "--maxmemory-policy", "noeviction") as own:
        async with writing(own.url, recorder) as writer:
            put(writer, 30)
            await until(lambda: recorder.lost == 30)
            assert (recorder.kept, len(writer)) == (0, 0)


async def test_a_part_that_is_refused_does_not_hold_up_the_rest(server: RedisServer) -> None:
    """Each entry of a batch has its own fate."""
    server.command("ACL", "SETUSER", "half", "on", ">w", "~sl2:1", "+set")
    recorder = Recorder()
    async with writing(server.url.replace("redis://", "redis://half:w@"), recorder) as writer:
        put(writer, 2)
        await writer.flush()
    assert (recorder.kept, recorder.lost) == (1, 1)
    assert server.client().get(b"sl2:1") == b"value"
