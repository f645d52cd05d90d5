"""A stand-in for inference: the right vector for a key is known, and every call is counted."""

import asyncio
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np

from cache import Entry, Fingerprint, Found, VectorCache, key
from cache.tiers import Compute

DIM = 16
FINGERPRINT = Fingerprint.of({"model": "test", "dim": DIM})


def keys_of(*texts: str) -> list[bytes]:
    return [key(FINGERPRINT, "t", text.encode()) for text in texts]


def many(n: int, of: str = "text") -> list[bytes]:
    return keys_of(*(f"{of} {i}" for i in range(n)))


def entry_of(key: bytes) -> Entry:
    """The only right vector for this key."""
    numbers = np.random.default_rng(crc32(key)).standard_normal(DIM)
    numbers /= np.linalg.norm(numbers)
    return Entry(numbers.astype("<f4").tobytes(), tokens=crc32(key) % 64, truncated=key[-1] > 127)


class Model:
    """`compute(keys)` is what a request hands to `resolve`; `slow` seconds pass in each call.

    One that is held answers only once its gate is set.
    """

    def __init__(self, slow: float = 0.0, *, held: bool = False) -> None:
        self.slow = slow
        self.calls: list[list[int]] = []
        self.gate = asyncio.Event()
        if not held:
            self.gate.set()

    @property
    def computed(self) -> int:
        return sum(map(len, self.calls))

    def compute(self, keys: Sequence[bytes]) -> Compute:
        async def run(positions: list[int]) -> Sequence[Entry | Exception]:
            self.calls.append(positions)
            await asyncio.sleep(self.slow)
            await self.gate.wait()
            return [entry_of(keys[position]) for position in positions]

        return run


def wrong(keys: Sequence[bytes], found: Found) -> int:
    """How many of these are not the right vector."""
    return sum(value != entry_of(k) for k, value in zip(keys, found.values, strict=True))


def states(found: Found) -> list[str]:
    return [str(state) for state in found.states]


async def ask(
    cache: VectorCache, keys: Sequence[bytes], compute: Compute, read: bool = True, **options: Any
) -> Found:
    """As a request asks: first memory, then everything else for what is missing."""
    found = cache.peek(keys, read)
    return await cache.resolve(keys, found, compute, read=read, **options)
