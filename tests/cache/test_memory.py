import gc
import os
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.codec import Entry
from cache.memory import MemoryTier, cost


def entry(dim: int = 8, token: int = 0) -> Entry:
    return Entry(np.full(dim, token, "<f4").tobytes(), token)


ONE = cost(b"a", entry())

OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["get", "put", "discard"]),
        st.sampled_from([b"a", b"b", b"c", b"d", b"e"]),
        st.sampled_from([4, 8, 64]),
    ),
    max_size=60,
)


class Slow:
    """What the tier should do, written without a thought for speed."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.items: list[tuple[bytes, Entry]] = []  # the oldest first

    def find(self, key: bytes) -> Entry | None:
        return dict(self.items).get(key)

    def get(self, key: bytes) -> Entry | None:
        found = self.find(key)
        if found is not None:
            self.discard(key)
            self.items.append((key, found))
        return found

    def put(self, key: bytes, value: Entry) -> None:
        self.discard(key)
        if cost(key, value) <= self.limit:
            self.items.append((key, value))
        while self.bytes > self.limit:
            del self.items[0]

    def discard(self, key: bytes) -> None:
        self.items = [item for item in self.items if item[0] != key]

    @property
    def bytes(self) -> int:
        return sum(cost(key, value) for key, value in self.items)


@settings(max_examples=200)
@given(st.integers(0, 6 * ONE), OPERATIONS)
def test_it_does_what_the_slow_model_does(
    limit: int, operations: list[tuple[str, bytes, int]]
) -> None:
    """Look-ups, contents, order of eviction and byte count agree after any history."""
    tier, model = MemoryTier(limit), Slow(limit)
    for step, (name, key, dim) in enumerate(operations):
        if name == "get":
            assert tier.get(key) == model.get(key)
        elif name == "put":
            tier.put(key, entry(dim, step))
            model.put(key, entry(dim, step))
        else:
            tier.discard(key)
            model.discard(key)
        assert tier.bytes == model.bytes <= limit
        assert len(tier) == len(model.items)
    for key, value in model.items:
        assert key in tier
        assert tier.get(key) == value


def test_putting_counts_what_had_to_leave() -> None:
    """One large vector may cost several small ones, and each is an eviction."""
    tier = MemoryTier(4 * ONE)
    assert [tier.put(key, entry()) for key in (b"a", b"b", b"c", b"d")] == [0, 0, 0, 0]
    assert tier.put(b"e", entry(64)) == tier.evictions == 2


def test_a_negative_limit_is_refused() -> None:
    """A misread setting is an error at start-up, not an odd cache."""
    with pytest.raises(ValueError, match="-1"):
        MemoryTier(-1)


@pytest.mark.parametrize("dim", [64, 768, 1152])
def test_the_byte_count_is_what_python_really_uses(dim: int) -> None:
    """The limit holds for the process: what is counted is never less than what is allocated."""
    tier = MemoryTier(1 << 30)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for i in range(4000):
            tier.put(os.urandom(45), Entry(os.urandom(4 * dim), 1000 + i))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    real = after - before
    assert real <= tier.bytes <= 1.25 * real
