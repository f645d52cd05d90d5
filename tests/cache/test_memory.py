import gc
import os
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.codec import Entry
from cache.memory import MemoryTier, NegativeTier, cost
from tests.support.clock import Clock


def entry(dim: int = 8, token: int = 0) -> Entry:
    return Entry(np.full(dim, token, "<f4").tobytes(), token)


ONE = cost(b"a", entry())

OPERATIONS = st.lists(
    st.tuples(
        st.booleans(),
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

    def get(self, key: bytes) -> Entry | None:
        found = dict(self.items).get(key)
        if found is not None:
            self.put(key, found)
        return found

    def put(self, key: bytes, value: Entry) -> int:
        self.items = [item for item in self.items if item[0] != key]
        if cost(key, value) <= self.limit:
            self.items.append((key, value))
        held = len(self.items)
        while self.bytes > self.limit:
            del self.items[0]
        return held - len(self.items)

    @property
    def bytes(self) -> int:
        return sum(cost(key, value) for key, value in self.items)


@settings(max_examples=200)
@given(st.integers(0, 6 * ONE), OPERATIONS)
def test_it_does_what_the_slow_model_does(
    limit: int, operations: list[tuple[bool, bytes, int]]
) -> None:
    """Look-ups, contents, order and number of evictions and byte count agree after any history."""
    tier, model = MemoryTier(limit), Slow(limit)
    for step, (puts, key, dim) in enumerate(operations):
        if puts:
            assert tier.put(key, entry(dim, step)) == model.put(key, entry(dim, step))
        else:
            assert tier.get(key) == model.get(key)
        assert tier.bytes == model.bytes <= limit
        assert len(tier) == len(model.items)
    for key, value in model.items:
        assert tier.get(key) == value


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


class First(Exception):
    """One thing that can be wrong with content."""


class Second(Exception):
    """Another."""


def test_an_error_is_forgotten_a_minute_after_the_last_trial() -> None:
    """A change of limits takes hold; what is earned again counts from then."""
    clock = Clock()
    tier = NegativeTier(clock=clock)
    tier.put(b"digest", First)
    clock.now += 59.9
    tier.put(b"digest", Second)
    clock.now += 59.9
    assert isinstance(tier.get(b"digest"), Second)
    clock.now += 0.2
    assert tier.get(b"digest") is None
    assert len(tier) == 0


def test_the_1024_errors_that_were_earned_last_are_held() -> None:
    """A flood of bad images costs a bounded amount of memory; what is earned again is young."""
    tier = NegativeTier()
    for i in (*range(1024), 0, 1024):
        tier.put(b"%d" % i, First)
    assert len(tier) == 1024
    assert isinstance(tier.get(b"0"), First)
    assert tier.get(b"1") is None
