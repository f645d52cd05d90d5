"""Gives freed memory back to the system, which the allocator would keep for each thread."""

from __future__ import annotations

import ctypes
import sys

LARGE = 64 << 20  # bytes after which it is worth the time
BUSY = 8  # looks between two times that memory is given back while as much passes at each


def give_back() -> None:
    """Whatever is free at the moment; a few milliseconds. Only glibc can do it."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    trim = getattr(library, "malloc_trim", None)
    if trim is not None:
        trim(0)


class Trim:
    """Gives memory back once more than `after` bytes are free that were held before.

    While much goes on passing it waits, for what is given back would be fetched again at once.
    """

    def __init__(self, after: int = LARGE) -> None:
        self._after = after
        self._held = self._peak = 0
        self._lately = 0  # passed since the last look
        self._again = False  # what was made of the bytes may be freed a moment after them

    def passed(self, size: int) -> None:
        self._peak += size
        self._lately += size

    def holds(self, total: int) -> None:
        self._held = total
        self._peak = max(self._peak, total)

    def tidy(self) -> None:
        """Give back, where it is much, and the next time once more: it takes milliseconds."""
        free, lately, self._lately = self._peak - self._held, self._lately, 0
        much = free > max(self._after, BUSY * lately)
        if much:
            self._peak = self._held
        if much or self._again:
            give_back()
        self._again = much
