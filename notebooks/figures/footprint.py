"""Bytes that a cached vector takes: in Redis as Redis says, in a process by the tier's count."""

from __future__ import annotations

import os

from bench.rig.redis_server import RedisServer
from cache import Entry, Fingerprint, encode, key
from cache.memory import cost

DAY = 86_400
PIECE = 500
MILLION = 1_000_000


def in_memory(dim: int) -> float:
    """Bytes of an entry in the memory of an HTTP process."""
    return float(cost(_name(0), _entry(dim)))


def in_redis(dim: int, many: int = 4_000) -> float:
    """Bytes of an entry in Redis: what a real one says it uses, before and after so many."""
    with RedisServer(unix=True) as redis, redis.client() as client:
        before = int(client.info("memory")["used_memory"])
        for first in range(0, many, PIECE):
            pipe = client.pipeline(transaction=False)
            for number in range(first, min(many, first + PIECE)):
                name = _name(number)
                pipe.set(name, encode(name, _entry(dim)), ex=30 * DAY)
            pipe.execute()
        return (int(client.info("memory")["used_memory"]) - before) / many


def _name(number: int) -> bytes:
    return key(Fingerprint.of({"model": "footprint"}), "t", b"%d" % number)


def _entry(dim: int) -> Entry:
    return Entry(os.urandom(4 * dim), tokens=8)
