"""Many look-ups at once: `RedisStore.get`, which gathers them, against redis-py, a GET for each.

    python -m bench.micro.lookups

Workers ask for one key after another, as the requests of a server do. All sides ask the same
private redis-server and take turns in the same event loop (uvloop), slice by slice. redis-py runs
twice: with as many connections as the store, and with one for each worker, which spares it the
queue for them. The target holds against both. The values weigh what vectors of 1,152 numbers
weigh. A look-up that the store gave up counts for nothing, and more than one in a thousand of
them fail the run. Exit code 0: all targets met; 1: not; 2: the run failed.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import uvloop
from redis.asyncio import BlockingConnectionPool, Redis

from bench.load.summary import percentile
from bench.rig.command import Figures, Target, concluded, failing, in_turn, measuring, ratio
from bench.rig.redis_server import RedisServer
from cache import RedisStore

WIDTHS = (32, 128)
CONNECTIONS = 8
KEYS, VALUE = 4096, 4608
AT_LEAST = 4.0
LOST = 0.001
STORE = "RedisStore.get"
PLAIN = ("redis-py GET", "redis-py GET, own connections")
COLUMNS = ("workers", "look-up", "per s", "least", "most", "p50 µs", "p99 µs", "CPU µs", "lost")

Ask = Callable[[bytes], Awaitable[object]]


class LookupsLost(Exception):
    """Too many look-ups brought nothing."""


@dataclass(slots=True)
class System:
    """One way to look up, at one number of workers."""

    name: str
    workers: int
    ask: Ask
    figures: Figures = field(default_factory=lambda: Figures(list))
    lost: int = 0
    found: int = 0

    async def measure(self, keys: Sequence[bytes], seconds: float) -> None:
        found: list[float] = []
        used, began = time.process_time(), time.perf_counter()
        starts = range(0, len(keys), max(1, len(keys) // self.workers))[: self.workers]
        await asyncio.gather(*(self._work(keys, s, began + seconds, found) for s in starts))
        took, used = time.perf_counter() - began, time.process_time() - used
        if not found:
            raise LookupsLost(f"{self.name}: nothing was found")
        self.found += len(found)
        found.sort()
        self.figures["per_s"].append(len(found) / took)
        self.figures["p50_us"].append(percentile(found, 50) * 1e6)
        self.figures["p99_us"].append(percentile(found, 99) * 1e6)
        self.figures["cpu_us"].append(used / len(found) * 1e6)

    async def _work(self, keys: Sequence[bytes], at: int, ends: float, found: list[float]) -> None:
        """One worker: key after key until the time is up."""
        while (began := time.perf_counter()) < ends:
            value = await self.ask(keys[at % len(keys)])
            at += 1
            if isinstance(value, bytes):
                found.append(time.perf_counter() - began)
            else:
                self.lost += 1

    def row(self) -> list[str]:
        medians = [self.figures.cells(name)[0] for name in ("p50_us", "p99_us", "cpu_us")]
        rates = self.figures.cells("per_s", ".0f")
        return [str(self.workers), self.name, *rates, *medians, str(self.lost)]

    def fields(self) -> dict[str, Any]:
        known = {"name": self.name, "workers": self.workers}
        return {**known, **self.figures.fields(), "found": self.found, "lost": self.lost}


def targets(systems: Sequence[System]) -> list[Target]:
    """How many times as many look-ups the store makes, for each number of workers."""
    named = {(one.workers, one.name): one.figures["per_s"] for one in systems}
    return [
        Target(
            f"{STORE} over {plain}, {width} workers",
            ratio(named[width, STORE], named[width, plain]),
            at_least=AT_LEAST,
        )
        for width in dict.fromkeys(one.workers for one in systems)
        for plain in PLAIN
    ]


async def compare(url: str, widths: Sequence[int], rounds: int, seconds: float) -> list[System]:
    """Measure on a running Redis.

    Raises:
        LookupsLost: more than one in a thousand brought nothing.
    """
    async with AsyncExitStack() as stack:
        store = RedisStore(url, connections=CONNECTIONS)
        await store.start()
        stack.push_async_callback(store.close)
        systems = []
        for width in sorted(widths):
            systems.append(System(STORE, width, _through(store)))
            for name, connections in zip(PLAIN, (CONNECTIONS, width), strict=True):
                plain = _plain(url, connections)
                stack.push_async_callback(plain.aclose)
                systems.append(System(name, width, plain.get))
        keys = await _fill(plain)
        for _, one in in_turn(systems, rounds, "look-ups"):
            await one.measure(keys, seconds)
    for one in systems:
        if one.lost > LOST * one.found:
            raise LookupsLost(f"{one.name}, {one.workers} workers: {one.lost} look-ups lost")
    return systems


def _plain(url: str, connections: int) -> Redis:
    pool = BlockingConnectionPool.from_url(
        url, max_connections=connections, timeout=30, protocol=2, socket_timeout=30
    )
    return Redis.from_pool(pool)


def _through(store: RedisStore) -> Ask:
    async def ask(key: bytes) -> object:
        return (await store.get([key]))[0]

    return ask


async def _fill(client: Redis) -> list[bytes]:
    keys = [b"sl2:" + os.urandom(41) for _ in range(KEYS)]
    for start in range(0, KEYS, 256):
        await client.mset({key: os.urandom(VALUE) for key in keys[start : start + 256]})
    return keys


@failing(LookupsLost)
def main(arguments: Sequence[str] | None = None) -> int:
    parser = measuring("bench.micro.lookups", __doc__, rounds=9, seconds=2.0)
    parser.add_argument("--workers", type=int, nargs="+", default=WIDTHS, metavar="N")
    options = parser.parse_args(arguments)
    with RedisServer() as redis:
        systems = uvloop.run(compare(redis.url, options.workers, options.rounds, options.seconds))
    fields = {
        "connections": CONNECTIONS,
        "value_bytes": VALUE,
        "systems": [one.fields() for one in systems],
    }
    rows = [COLUMNS, *(one.row() for one in systems)]
    return concluded("lookups", options, rows, targets(systems), fields)


if __name__ == "__main__":
    sys.exit(main())
