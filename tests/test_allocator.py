"""Freed memory goes back to the system, once it is worth the time."""

import platform

import psutil
import pytest

from litapi.allocator import Trim

MB = 1 << 20
BLOCK = 64 << 10  # bytes; the allocator keeps blocks of this size for itself

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc gives back on demand"
)


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


def test_memory_goes_back_once_much_of_it_is_free() -> None:
    """Not before, and again after the next peak."""
    trim = Trim(after=16 * MB)
    for _ in range(2):
        blocks = [b"x" * BLOCK for _ in range(100 * MB // BLOCK)]
        trim.holds(100 * MB)
        trim.tidy()
        full = resident()
        del blocks[:-1]  # the last one keeps the heap from shrinking by itself
        trim.holds(90 * MB)
        trim.tidy()
        assert resident() > full - 50 * MB
        trim.holds(BLOCK)
        trim.tidy()
        assert resident() < full - 50 * MB


def test_what_passes_counts_as_much_as_what_is_held() -> None:
    """Many that came and went leave as much behind as one large one, once they are over."""
    trim = Trim(after=16 * MB)
    blocks = [b"x" * BLOCK for _ in range(100 * MB // BLOCK)]
    full = resident()
    del blocks[:-1]
    for _ in range(20):
        trim.passed(MB)
    trim.tidy()
    assert resident() > full - 50 * MB
    trim.tidy()
    assert resident() < full - 50 * MB


def test_what_is_freed_a_moment_later_goes_back_too() -> None:
    """Text that was parsed outlives the body that it came in."""
    trim = Trim(after=16 * MB)
    blocks = [b"x" * BLOCK for _ in range(100 * MB // BLOCK)]
    full = resident()
    trim.holds(100 * MB)
    trim.holds(0)
    trim.tidy()
    assert resident() > full - 50 * MB
    del blocks[:-1]
    trim.tidy()
    assert resident() < full - 50 * MB
