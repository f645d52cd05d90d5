"""Whatever happens to Redis: nobody gets an error, nobody a wrong vector, and hits come back."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from bench.rig.fault_proxy import Fault, FaultProxy
from bench.rig.redis_server import RedisServer
from cache import MemoryTier, RedisStore, State, VectorCache, encode
from cache.redis.breaker import Circuit
from tests.support.model import DIM, Model, ask, entry_of, many, states, wrong
from tests.support.patience import until
from tests.support.recorder import Recorder

pytestmark = pytest.mark.anyio

KEYS = many(200)
# a shared machine can stall a healthy Redis for longer than the 20 ms of a service
BUDGET = 0.1


@dataclass
class Scene:
    """A cache without a memory of its own, so that every request depends on Redis."""

    cache: VectorCache
    store: RedisStore
    recorder: Recorder
    model: Model = field(default_factory=Model)

    async def ask(self, keys: list[bytes]) -> list[str]:
        found = await ask(self.cache, keys, self.model.compute(keys))
        assert wrong(keys, found) == 0
        return states(found)

    async def hits(self) -> bool:
        return await self.ask(KEYS[:5]) == [State.HIT_L2] * 5

    async def fill(self) -> None:
        """Until Redis has every key and says so."""
        await ask(self.cache, KEYS, self.model.compute(KEYS))
        await until(lambda: self.recorder.kept >= len(KEYS))
        await until(self.hits)

    async def load(
        self, seconds: float, workers: int = 8, enough: Callable[[], bool] = lambda: True
    ) -> Counter[str]:
        """Steady requests from several clients, for so long and until it was enough: none fails and
        none is wrong."""
        came: Counter[str] = Counter()
        ends = time.monotonic() + seconds

        async def client(chance: random.Random) -> None:
            while time.monotonic() < ends or not enough():
                came.update(await self.ask(chance.sample(KEYS, 3)))
                await asyncio.sleep(0.005)

        await asyncio.gather(*(client(random.Random(i)) for i in range(workers)))
        assert came
        return came


@asynccontextmanager
async def scene(url: str, budget: float = BUDGET, **options: Any) -> AsyncIterator[Scene]:
    recorder = Recorder()
    store = RedisStore(url, budget=budget, watcher=recorder, **options)
    cache = VectorCache(DIM, MemoryTier(0), store, recorder)
    await cache.start()
    try:
        yield Scene(cache, store, recorder)
    finally:
        await cache.close()


async def test_a_redis_that_is_killed_and_restarted_is_used_again() -> None:
    """kill -9 under load: no error, no wrong vector; after its return it hits again."""
    with RedisServer() as server:
        async with scene(server.url) as it:
            await it.fill()
            load = asyncio.create_task(it.load(2.0))
            await until(lambda: it.recorder.results["redis", "hit"] > len(KEYS))
            server.kill()
            await until(lambda: Circuit.HALF_OPEN in it.recorder.circuits)
            server.start()
            await until(it.hits)
            came = await load
            assert came["hit-l2"] > 0


async def test_a_redis_that_hangs_is_given_up_within_the_budget() -> None:
    """SIGSTOP: connections open and nothing answers; requests neither hang nor fail."""
    with RedisServer() as server:
        async with scene(server.url, budget=0.02) as it:
            server.pause()
            results = it.recorder.results
            came = await it.load(
                0.5, enough=lambda: results["redis", "bypass"] > results["redis", "error"]
            )
            assert set(came) <= {"miss", "join"}
            assert it.store.state is not Circuit.CLOSED
            server.resume()
            await until(it.hits)


async def test_a_long_hang_does_not_delay_the_return() -> None:
    """By the breaker's clock, which stands, its wait never ends: the probe beside it cuts it."""
    with RedisServer() as server:
        async with scene(server.url, budget=0.5, clock=lambda: 1000.0) as it:
            await it.fill()
            server.pause()
            await it.load(0.1, enough=lambda: it.store.state is Circuit.OPEN)
            await asyncio.sleep(1.0)  # the first probe is late by now
            server.resume()
            await until(it.hits)


@pytest.mark.parametrize("fault", [Fault.BLACKHOLE, Fault.HALF, Fault.RESET, Fault.DELAY])
async def test_a_network_that_fails_is_an_outage_and_no_more(
    server: RedisServer, fault: Fault
) -> None:
    """Lost, cut, reset or late replies: no error and no wrong vector, and then hits again."""
    async with FaultProxy(server.url, delay=0.4) as proxy, scene(proxy.url) as it:
        await it.fill()
        proxy.fault = fault
        await it.load(0.5, enough=lambda: Circuit.OPEN in it.recorder.circuits)
        assert it.recorder.results["redis", "error"] >= 3
        proxy.fault = Fault.PASS
        await until(it.hits)
        await it.load(0.2)


async def test_a_redis_that_answers_pings_but_not_lookups_is_asked_ever_more_rarely(
    server: RedisServer,
) -> None:
    """A probe that always succeeds is no news: it does not cut the wait of the breaker."""
    big = encode(KEYS[0], entry_of(KEYS[0]))
    async with FaultProxy(server.url) as proxy, scene(proxy.url) as it:
        for key in KEYS:
            server.client().set(key, big)
        server.command("ACL", "SETUSER", "default", "-mget")
        try:
            half_open = str(Circuit.HALF_OPEN)
            await it.load(2.5, workers=2, enough=lambda: half_open in it.recorder.circuits)
        finally:
            server.command("ACL", "SETUSER", "default", "+mget")
        # at 0.5 and 1.5 s after opening; a probe that cut every wait would make it ten
        assert 1 <= it.recorder.circuits.count(half_open) <= 3


async def test_a_thousand_damaged_values_are_a_thousand_misses(server: RedisServer) -> None:
    """Each is counted as corrupt, computed and replaced; none is served."""
    chance, keys = random.Random(5), many(1000, of="damaged")
    pipe = server.client().pipeline(transaction=False)
    for key in keys:
        blob = bytearray(encode(key, entry_of(key)))
        bit = chance.randrange(8 * len(blob))
        blob[bit // 8] ^= 1 << bit % 8
        pipe.set(key, bytes(blob))
    pipe.execute()
    async with scene(server.url, budget=30.0) as it:
        assert await it.ask(keys) == ["miss"] * 1000
        assert it.recorder.results["redis", "corrupt"] == 1000
        await until(lambda: it.recorder.kept == 1000)
        assert await it.ask(keys) == ["hit-l2"] * 1000


async def test_a_full_redis_that_evicts_nothing_still_answers() -> None:
    """Refused writes are counted, and what it holds is still found."""
    with RedisServer() as server:
        async with scene(server.url, budget=10.0) as it:
            await it.fill()
            server.client().config_set("maxmemory-policy", "noeviction")
            server.client().config_set("maxmemory", "1")
            fresh = many(300, of="fresh")
            assert set(await it.ask(fresh)) == {"miss"}
            await until(lambda: it.recorder.lost >= 64)
            assert await it.hits()
            await it.load(0.3)
            assert it.store.state is Circuit.CLOSED
