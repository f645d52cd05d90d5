"""Which workers have interactive work, and whose turn it is for bulk, in memory that they share.

Workers on one device, such as the two towers on a CPU, take time from each other. So a worker
begins no bulk batch while another one on its device has interactive work. Where a batch uses all of
the device, bulk batches take turns too: two side by side take as long as one after the other, and
interactive work would wait for both.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import MutableSequence, Sequence

IDLE, BUSY = 0.0, -1.0


class Urgency:
    """A word for each worker. Made in the main process, before any other is started."""

    def __init__(self, devices: Sequence[str]) -> None:
        self._devices = list(devices)
        context = multiprocessing.get_context("spawn")
        self._urgent = context.RawArray("b", len(self._devices))
        self._bulk = context.RawArray("d", len(self._devices))

    def of(self, worker: int) -> Urgent:
        """The view of one worker, by its place among all of the server."""
        device = self._devices[worker]
        same = [n for n, other in enumerate(self._devices) if other == device and n != worker]
        return Urgent(self._urgent, self._bulk, worker, same)

    def clear(self, worker: int) -> None:
        """That worker is gone."""
        self._urgent[worker] = 0
        self._bulk[worker] = IDLE


class Urgent:
    """One worker's words, and those of its neighbours on the device."""

    def __init__(
        self,
        words: MutableSequence[int],
        bulk: MutableSequence[float],
        mine: int,
        neighbours: Sequence[int],
    ) -> None:
        self._words = words
        self._bulk = bulk  # since when each waits for its turn, or BUSY or IDLE
        self._mine = mine
        self._neighbours = neighbours

    def say(self, urgent: bool) -> None:
        """Whether this worker has interactive work."""
        self._words[self._mine] = urgent

    def elsewhere(self) -> bool:
        """Whether a neighbour has."""
        return any(self._words[n] for n in self._neighbours)

    def turn(self, since: float) -> bool:
        """Whether bulk that waits since then, by the monotonic clock, may begin: no neighbour is at
        it or has waited longer."""
        if self._bulk[self._mine] != BUSY:
            self._bulk[self._mine] = since
        others = [self._bulk[n] for n in self._neighbours]
        return not any(other == BUSY or IDLE < other < since for other in others)

    def begin(self) -> None:
        """This worker begins a bulk batch."""
        self._bulk[self._mine] = BUSY

    def end(self) -> None:
        """It does no bulk now, and waits for no turn."""
        self._bulk[self._mine] = IDLE
