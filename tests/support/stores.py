"""A store that is started and closed, and values for it to find."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bench.rig.redis_server import RedisServer
from cache import RedisStore


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[RedisStore]:
    """Patient, unless the test is of the budget."""
    store = RedisStore(url, **{"budget": 2.0, **options})
    await store.start()
    try:
        yield store
    finally:
        await store.close()


def value_of(key: bytes) -> bytes:
    return b"value of " + key


def fill(server: RedisServer, n: int) -> list[bytes]:
    """Keys that the server has a value for."""
    keys = [b"sl2:%d" % i for i in range(n)]
    with server.client() as client:
        client.mset({key: value_of(key) for key in keys})
    return keys
