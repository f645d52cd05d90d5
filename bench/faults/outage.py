"""Rows 5 to 7: Redis dies, hangs, replies by halves, is slow, full, emptied, and holds bad values.

The server has no memory of its own here, so that every look-up goes to Redis, and has half the load
that it can take without any cache. Clients see right answers, a little later. What a fault adds to
the slowest is mostly towers that compute what Redis had; judged is the wait for Redis alone, which
`Server-Timing` tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

from bench.faults.question import as_floats, drawn_texts
from bench.faults.row import Finding
from bench.faults.stage import Stage, counter, until
from bench.faults.traffic import Traffic
from bench.rig.fault_proxy import Fault, FaultProxy
from bench.rig.redis_server import RedisServer
from bench.rig.server_process import ServerProcess

CLIENTS = 4
LOAD = 0.5
FRESH = 0.2  # so that there is something to write as well
BACK_WITHIN = 30.0  # seconds
# A Redis that answers, but late, or refuses to keep anything, gives no sign of its recovery: the
# breaker asks again after its own doubling wait, of 10 s at most.
BREAKER_WAIT = 12.0


@dataclass(slots=True)
class Outage:
    """Load on a server behind a Redis, with what each fault added to its slowest answers."""

    stage: Stage
    finding: Finding
    traffic: Traffic
    quiet: float = 0.0  # ms, p99 before

    @classmethod
    @asynccontextmanager
    async def of(
        cls, stage: Stage, finding: Finding, redis: RedisServer | FaultProxy
    ) -> AsyncIterator[Outage]:
        """Wait for hits, measure without a fault, play, and count everything in."""
        server = await stage.behind(redis)
        async with await stage.traffic(server, fresh=1.0) as computed:
            seconds = stage.of(10.0, 1.0)
            rate = LOAD * (await computed.closed(CLIENTS, seconds)).answered / seconds
        async with await stage.traffic(server, fresh=FRESH) as traffic:
            outage = cls(stage, finding, traffic)
            await traffic.once_each()
            async with traffic.steady(rate):
                await outage.back()
                traffic.turn()
                await asyncio.sleep(stage.of(5.0, 1.0))
                outage.quiet = traffic.turn().p99_ms
                yield outage
            finding.take(traffic.whole())

    async def lasts(self, name: str, seconds: float, judged: bool = True) -> None:
        self.traffic.turn()
        await asyncio.sleep(seconds)
        tally = self.traffic.turn()
        added, waited = tally.p99_ms - self.quiet, tally.cache_p99_ms
        self.finding.note(
            f"{name}: p99 {added:+.0f} ms on {self.quiet:.0f} ms, for Redis {waited:.0f} ms"
        )
        self.finding.timely(waited <= 25 or not judged, f"{name}: p99 of the wait for Redis 25 ms")

    async def back(self) -> float:
        """Seconds until answers come from Redis again."""

        async def hit() -> bool:
            return self.traffic.tally.states["hit-l2"] > 0

        return await until(hit, BACK_WITHIN, every=0.02)

    async def returned(self, name: str, within: float = 1.0) -> None:
        self.traffic.turn()
        seconds = await self.back()
        self.finding.note(f"{name}: hits back after {seconds:.1f} s")
        self.finding.timely(seconds <= within, f"{name}: hits back within {within:.0f} s")


async def killed_redis(stage: Stage, finding: Finding) -> None:
    """Redis is killed and comes back empty."""
    redis, proxy = await stage.redis()
    way: RedisServer | FaultProxy = redis if stage.long else proxy
    async with Outage.of(stage, finding, way) as outage:
        for _ in range(stage.of(3, 1)):
            await asyncio.to_thread(redis.kill)
            await outage.lasts("killed", stage.of(5.0, 1.0))
            await asyncio.to_thread(redis.start)
            await outage.returned("killed")


async def hanging_redis(stage: Stage, finding: Finding) -> None:
    """It stops in the middle, takes without giving, and hangs up in the middle of a reply."""
    redis, proxy = await stage.redis()
    async with Outage.of(stage, finding, proxy) as outage:
        redis.pause()
        try:
            await outage.lasts("stopped", stage.of(10.0, 1.0))
        finally:
            redis.resume()
        await outage.returned("stopped")
        for fault in (Fault.BLACKHOLE, Fault.HALF):
            await under(proxy, fault, outage.lasts(fault.name.lower(), stage.of(10.0, 1.0)))
            await outage.returned(fault.name.lower())


async def under(proxy: FaultProxy, fault: Fault, play: Any) -> None:
    proxy.fault = fault
    try:
        await play
    finally:
        proxy.fault = Fault.PASS


async def spoilt_redis(stage: Stage, finding: Finding) -> None:
    """It is slow, full, emptied; and then its values are damaged, bit by bit."""
    redis, proxy = await stage.redis()
    seconds = stage.of(10.0, 1.0)
    async with Outage.of(stage, finding, proxy) as outage:
        await under(proxy, Fault.DELAY, outage.lasts("+50 ms", seconds, judged=False))
        await outage.returned("+50 ms", BREAKER_WAIT)
        await asyncio.to_thread(_fill, redis, True)
        await outage.lasts("full", seconds, judged=False)
        await asyncio.to_thread(_fill, redis, False)
        await asyncio.to_thread(redis.command, "FLUSHALL")
        await outage.lasts("flushed", stage.of(2.0, 0.5), judged=False)
        await outage.returned("flushed", BREAKER_WAIT)
    await _damaged(stage, finding, await stage.behind(proxy), redis)


def _fill(redis: RedisServer, full: bool) -> None:
    redis.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    redis.command("CONFIG", "SET", "maxmemory", 1 if full else 0)


async def _damaged(
    stage: Stage, finding: Finding, server: ServerProcess, redis: RedisServer
) -> None:
    """Every damaged value is noticed, counted, and never served."""
    many = stage.of(1000, 100)
    texts = drawn_texts(many, seed=77)
    questions = [as_floats(texts[i : i + 10]) for i in range(0, many, 10)]
    async with await stage.traffic(server, questions) as traffic:
        await asyncio.to_thread(redis.command, "FLUSHALL")

        async def kept() -> bool:
            if await asyncio.to_thread(redis.command, "DBSIZE") >= many:
                return True
            await traffic.once_each()
            return False

        await until(kept, BACK_WITHIN, every=0.3)  # the writers' breaker may still be open
        finding.take(traffic.turn())
        await asyncio.to_thread(_flip, redis)
        before = await _results(server.url)
        for question in questions:  # one by one, so that each look-up is within its budget
            await traffic.ask(question)
        after = await _results(server.url)
        finding.take(traffic.turn())
    grown = {name: int(after[name] - before[name]) for name in after}
    # A value whose look-up ran out of its 20 ms was not read: it is written anew unseen.
    unread = grown["error"] + grown["bypass"]
    finding.must(grown["hit"] == 0, f"no damaged value is served: {grown}")
    finding.must(grown["corrupt"] + unread == many, f"every one that was read is counted: {grown}")
    finding.must(grown["corrupt"] > 0, "some were read")
    finding.note(f"{many} damaged values: {grown['corrupt']} counted corrupt, {unread} not read")


def _flip(redis: RedisServer) -> None:
    rng = Random(5)
    with redis.client() as client:
        for key in list(client.scan_iter(match=b"sl2:*", count=1000)):
            value = bytearray(client.get(key) or b"")
            value[rng.randrange(len(value))] ^= 1 << rng.randrange(8)
            client.set(key, bytes(value), keepttl=True)


async def _results(url: str) -> dict[str, float]:
    names = ("hit", "miss", "corrupt", "error", "bypass")
    return {
        name: await counter(url, "cache_requests_total", 'tier="redis"', f'result="{name}"')
        for name in names
    }
