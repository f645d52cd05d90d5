"""Bodies kept during a level and judged after it, so that judging never slows the traffic.

All of them are kept while they fit; then every second, every fourth, and so on. `stride` says
which, and it stands in every report.
"""

from __future__ import annotations

from bench.load.answer import Judge
from bench.load.sample import Sample

ROOM = 64 << 20  # bytes, in each process


class Shelf:
    """Every `stride`-th body that came."""

    def __init__(self, room: int = ROOM) -> None:
        self.stride = 1
        self._room = room
        self._seen = 0
        self._weight = 0
        self._kept: list[tuple[int, Sample, bytes, bytes]] = []

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, sample: Sample, head: bytes, body: bytes) -> None:
        """Keep this one, if it is its turn."""
        place, self._seen = self._seen, self._seen + 1
        if place % self.stride:
            return
        self._kept.append((place, sample, head, body))
        self._weight += len(body)
        if self._weight > self._room:
            self._thin()

    def _thin(self) -> None:
        self.stride *= 2
        self._kept = [one for one in self._kept if one[0] % self.stride == 0]
        self._weight = sum(len(body) for *_, body in self._kept)

    def judge(self, judge: Judge) -> None:
        """Note in each sample what is wrong with its body, if anything."""
        for _, sample, head, body in self._kept:
            sample.checked = True
            sample.error = judge.fault(head, body, sample.items)
