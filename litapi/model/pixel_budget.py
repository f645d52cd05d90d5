"""How much may be decoded at the same time in one process, in pixels and in bytes.

What a picture takes while it is decoded depends on its format and mode, not on what its file
weighs. Decoding threads wait here until the pictures under way leave room, so memory is bounded by
the budget and not by what arrives; where no option says how much, it is enough for each of them to
have a phone's picture. A picture of more pixels than the whole budget is decoded alone; one that
takes too many bytes is refused before, see `has_room_for`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from litapi.allocator import LARGE, Trim, give_back
from litapi.settings import Settings

PIXELS, MB = 100_000_000, 500  # of a worker; one picture may take no more megabytes
THREAD_PIXELS, THREAD_MB = 12_500_000, 64  # for each decoding thread, where that is more


class PixelBudget:
    """Counts what is under way; shared by the decoding threads of a process.

    `most_bytes` 0 means that only pixels are bounded; `largest`, by default as many, is the most
    that one picture may take.
    """

    def __init__(self, pixels: int, most_bytes: int = 0, largest: int = 0) -> None:
        self._pixels = pixels
        self.held = self.held_bytes = 0  # pixels under way, and what they take
        self.trim = Trim()  # of what was decoded here
        self._changed = threading.Condition()
        self.most_bytes = most_bytes
        self._largest = largest or most_bytes

    @classmethod
    def of(cls, settings: Settings, threads: int) -> Self:
        pixels = settings.max_pixels_in_flight or max(PIXELS, threads * THREAD_PIXELS)
        megabytes = settings.decode_mb or max(MB, threads * THREAD_MB)
        return cls(pixels, megabytes << 20, (settings.decode_mb or MB) << 20)

    def has_room_for(self, size: int) -> bool:
        return not self._largest or size <= self._largest

    @contextmanager
    def hold(self, pixels: int, size: int = 0) -> Iterator[None]:
        """Wait for room, and keep it while a picture is decoded."""
        with self._changed:
            self._changed.wait_for(lambda: self.held == 0 or self._fits(pixels, size))
            self.held += pixels
            self.held_bytes += size
        try:
            yield
        finally:
            if size > LARGE:
                give_back()
            with self._changed:
                self.held -= pixels
                self.held_bytes -= size
                self.trim.passed(size)
                self._changed.notify_all()

    def _fits(self, pixels: int, size: int) -> bool:
        within = self.held + pixels <= self._pixels
        return within and (not self.most_bytes or self.held_bytes + size <= self.most_bytes)
