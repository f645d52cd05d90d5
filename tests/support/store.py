"""A Redis store for the length of a block."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from cache import RedisStore

PATIENT = 10.0  # a budget for tests of something else than the budget


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[RedisStore]:
    store = RedisStore(url, **{"budget": PATIENT, **options})
    await store.start()
    try:
        yield store
    finally:
        await store.close()
