"""How many pixels may be decoded at the same time in one process.

A picture takes eight bytes a pixel or so while it is decoded, whatever its file weighs. Decoding
threads wait here until the pictures under way leave room, so memory is bounded by the budget and
not by what arrives. A picture larger than the whole budget is decoded alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class PixelBudget:
    """Counts the pixels under way; shared by the decoding threads of a process."""

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._held = 0
        self._changed = threading.Condition()

    @property
    def held(self) -> int:
        """Pixels under way now."""
        return self._held

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Wait for room, and keep it while a picture is decoded."""
        with self._changed:
            self._changed.wait_for(lambda: self._held == 0 or self._held + pixels <= self._pixels)
            self._held += pixels
        try:
            yield
        finally:
            with self._changed:
                self._held -= pixels
                self._changed.notify_all()
