"""How much work may be in flight, tower by tower, before a request is told to come back.

Two bounds. A fixed one on items and bytes keeps memory bounded whatever arrives. A measured one
keeps the wait bounded: from how long finished jobs took and how much stood before them, it guesses
what a new job would wait, and refuses what would wait too long to be worth it. A job that waited
for a worker to be replaced says nothing about the pace, and nothing is learnt from it. One that was
nearly alone tells its latency, of which the pace is only a part: it can lower the guess at once,
and raise it by little. A request that finds nothing in flight is always let in, however large: it
would never fit otherwise. What the cache knows never comes here.

An image of more patches than usual counts as several items: attention makes its cost grow faster
than its patches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from litapi.errors import Overloaded

SMOOTHING = 0.1  # weight of the newest job in the measured seconds an item
ATTENTION = 4096  # patches from which on the quadratic part of the model costs more than the rest
CROWD = 16  # items under way from which on a job's seconds tell the pace, and not the latency


def cost_of(patches: int, usual: int) -> int:
    """As how many items an image counts for which so many patches are asked; `usual` count one."""
    asked, one = (n * (1 + n / ATTENTION) for n in (patches, usual))
    return max(1, math.ceil(asked / one))


def _always() -> float:
    return 0.0


class Room:
    """What one job takes up."""

    __slots__ = ("_admission", "_ahead", "_began", "_items", "_size")

    def __init__(self, admission: Admission, items: int, size: int) -> None:
        self._admission = admission
        self._items = items
        self._size = size

    def __enter__(self) -> None:
        admission = self._admission
        admission.items += self._items
        admission.bytes += self._size
        self._ahead, self._began = admission.items, time.monotonic()

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        admission = self._admission
        admission.items -= self._items
        admission.bytes -= self._size
        if error is None and admission.whole_since() <= self._began:
            admission.learn(time.monotonic() - self._began, max(1, self._ahead))


@dataclass(slots=True)
class Admission:
    """The work of one tower in one HTTP process."""

    max_items: int
    max_bytes: int
    max_wait: float  # seconds
    whole_since: Callable[[], float] = _always  # since when all workers of the tower are there
    items: int = 0
    bytes: int = 0
    seconds_an_item: float = 0.0
    refused: int = 0

    def admit(self, items: int, size: int) -> Room:
        """Room for a job; `with` holds it while the job is under way.

        Raises:
            Overloaded: there is none; its `retry_after` says in how many seconds there may be.
        """
        self._check(items, size)
        return Room(self, items, size)

    @property
    def wait(self) -> float:
        """Seconds that what is in flight will probably take."""
        return self.items * self.seconds_an_item

    def _check(self, items: int, size: int) -> None:
        if self.items == 0:
            return
        full = self.items + items > self.max_items or self.bytes + size > self.max_bytes
        if full or self.wait > self.max_wait:
            self.refused += 1
            raise Overloaded.after(math.ceil(min(60.0, max(1.0, self.wait / 2))))

    def learn(self, seconds: float, ahead: int) -> None:
        """A job took so long, with so many items under way when it began."""
        change = seconds / ahead - self.seconds_an_item
        weight = SMOOTHING * min(1.0, ahead / CROWD) if change > 0 else SMOOTHING
        self.seconds_an_item += weight * change
