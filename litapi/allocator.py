"""Gives freed memory back to the system, which the allocator would keep for each thread."""

from __future__ import annotations

import ctypes
import sys

LARGE = 64 << 20  # bytes after which it is worth the time


def give_back() -> None:
    """Whatever is free at the moment; a few milliseconds. Only glibc can do it."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    trim = getattr(library, "malloc_trim", None)
    if trim is not None:
        trim(0)


class Traffic:
    """Counts the large objects that came and went, and gives back what they left behind."""

    def __init__(self) -> None:
        self._bytes = 0

    def passed(self, size: int) -> None:
        """So many bytes were held and are free again."""
        self._bytes += size

    def tidy(self) -> None:
        """Give back what has passed since the last time, where it was much."""
        if self._bytes > LARGE:
            self._bytes = 0
            give_back()
