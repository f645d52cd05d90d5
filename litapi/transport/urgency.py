"""Which workers have interactive work, in memory that the workers of a server share.

Workers on one device, such as the two towers on a CPU, take time from each other. So a worker
begins no bulk batch while another one on its device has interactive work.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import MutableSequence, Sequence


class Urgency:
    """A word for each worker. Made in the main process, before any other is started."""

    def __init__(self, devices: Sequence[str]) -> None:
        self._devices = list(devices)
        self._urgent = multiprocessing.get_context("spawn").RawArray("b", len(self._devices))

    def of(self, worker: int) -> Urgent:
        """The view of one worker, by its place among all of the server."""
        device = self._devices[worker]
        same = [n for n, other in enumerate(self._devices) if other == device and n != worker]
        return Urgent(self._urgent, worker, same)

    def clear(self, worker: int) -> None:
        """That worker is gone."""
        self._urgent[worker] = 0


class Urgent:
    """One worker's word, and those of its neighbours on the device."""

    def __init__(self, words: MutableSequence[int], mine: int, neighbours: Sequence[int]) -> None:
        self._words = words
        self._mine = mine
        self._neighbours = neighbours

    def say(self, urgent: bool) -> None:
        """Whether this worker has interactive work."""
        self._words[self._mine] = urgent

    def elsewhere(self) -> bool:
        """Whether a neighbour has."""
        return any(self._words[n] for n in self._neighbours)
