"""One measurement of a scenario: what is sent, how much of it, to which systems."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.compare.baselines.system import System
from bench.load.item import Kind


@dataclass(frozen=True, slots=True)
class Part:
    """A closed loop at `levels` or an open one at `rates`, and the bare towers beside it."""

    name: str
    kind: Kind
    systems: tuple[System, ...] = ()
    levels: tuple[int, ...] = ()
    rates: tuple[float, ...] = ()
    items: int = 1  # in a request
    requests: int = 0  # of a level at least, and one for each client; 0: no such bound
    seconds: float = 0.0  # of a level; 0: no such bound
    repeat: float = 0.0  # share of items out of a universe that is sent before
    universe: int = 256  # how many items are in it
    flood: int = 0  # requests in flight beside, in bulk where a system has classes
    flood_items: int = 8  # in each of them
    warmup: int = 10
    bare: tuple[int, ...] = ()  # sizes of the bare towers' batches
    bare_seconds: float = 5.0  # for each of them
    precision: str = ""  # of the bare towers where it is not the ground's; systems choose their own

    def level_requests(self, level: int) -> int:
        """Requests of a closed level, so that each client gets an answer."""
        return max(level, self.requests) if self.requests else 0

    def changed(
        self,
        levels: Sequence[int] = (),
        rates: Sequence[float] = (),
        requests: int = 0,
        seconds: float = 0.0,
    ) -> Part:
        """With the options of a run: levels and rates where there are several, bounds anywhere.

        `requests` are of one item; of those with more items there are as many fewer.
        """
        part = self
        if levels and len(part.levels) > 1:
            part = replace(part, levels=tuple(levels))
        if rates and part.rates:
            part = replace(part, rates=tuple(rates))
        if requests and part.requests:
            part = replace(part, requests=math.ceil(requests / part.items))
        if seconds:
            bare = min(seconds, part.bare_seconds)
            part = replace(part, seconds=seconds if part.seconds else 0.0, bare_seconds=bare)
        return part

    def among(self, names: Sequence[str]) -> Part:
        return replace(self, systems=tuple(one for one in self.systems if one.name in names))
