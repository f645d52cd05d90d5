"""How much may be decoded at the same time in one process, in pixels and in bytes.

What a picture takes while it is decoded depends on its format and mode, not on what its file
weighs. Decoding threads wait here until the pictures under way leave room, so memory is bounded by
the budget and not by what arrives. A picture of more pixels than the whole budget is decoded
alone; one of more bytes is refused before, see `has_room_for`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from litapi.allocator import LARGE, give_back


class PixelBudget:
    """Counts what is under way; shared by the decoding threads of a process.

    `most_bytes` 0 means that only pixels are bounded.
    """

    def __init__(self, pixels: int, most_bytes: int = 0) -> None:
        self._pixels = pixels
        self._held = 0
        self._held_bytes = 0
        self._changed = threading.Condition()
        self.most_bytes = most_bytes

    @property
    def held(self) -> int:
        """Pixels under way now."""
        return self._held

    @property
    def held_bytes(self) -> int:
        """Bytes that those pixels take."""
        return self._held_bytes

    def has_room_for(self, size: int) -> bool:
        """Whether a picture that takes so many bytes may be decoded at all."""
        return not self.most_bytes or size <= self.most_bytes

    @contextmanager
    def hold(self, pixels: int, size: int = 0) -> Iterator[None]:
        """Wait for room, and keep it while a picture is decoded."""
        with self._changed:
            self._changed.wait_for(lambda: self._held == 0 or self._fits(pixels, size))
            self._held += pixels
            self._held_bytes += size
        try:
            yield
        finally:
            if size > LARGE:
                give_back()
            with self._changed:
                self._held -= pixels
                self._held_bytes -= size
                self._changed.notify_all()

    def _fits(self, pixels: int, size: int) -> bool:
        within = self._held + pixels <= self._pixels
        return within and self.has_room_for(self._held_bytes + size)
