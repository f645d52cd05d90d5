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


class Trim:
    """Gives memory back once more than `after` bytes are free that were held before."""

    def __init__(self, after: int = LARGE) -> None:
        self._after = after
        self._held = self._peak = 0

    def passed(self, size: int) -> None:
        self._peak += size

    def holds(self, total: int) -> None:
        self._held = total
        self._peak = max(self._peak, total)

    def tidy(self) -> None:
        """Give back, where it is much: it takes milliseconds."""
        if self._peak - self._held > self._after:
            self._peak = self._held
            give_back()
