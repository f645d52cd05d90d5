"""What is asked of a server for a while: one row of the table.

A closed loop keeps `concurrency` requests in flight, as that many patient clients would. An open
loop sends at `rate` whatever the server does, as the world would. Level 0 is the warm-up; its
requests are recorded like all others and never counted.

The schedule is fixed before the first request leaves, and latency counts from it. A server that
stalls therefore cannot hide the requests it held up: they are late from the moment they were due,
not from the moment the generator got round to them ("coordinated omission"). Every process walks
the same schedule and takes every n-th turn, so the traffic as a whole does not depend on how many
processes send it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, count, islice, repeat, takewhile
from random import Random
from typing import Literal

Arrivals = Literal["constant", "poisson"]
WARMUP = 0
PLACES_EACH = 256  # requests in flight that one generator process holds with ease
RATE_EACH = 2000.0  # requests a second that one generator process sends with ease


@dataclass(frozen=True, slots=True)
class Level:
    """Zero stands for "no such bound"; one of `concurrency` and `rate` is set."""

    number: int
    concurrency: int = 0
    rate: float = 0.0
    arrivals: Arrivals = "constant"
    requests: int = 0
    duration: float = 0.0
    connections: int = 2048  # an open loop's most

    @property
    def name(self) -> str:
        """How the table calls it: `50` or `200/s`."""
        return f"{self.rate:g}/s" if self.rate else str(self.concurrency)

    @property
    def width(self) -> int:
        return self.connections if self.rate else self.concurrency

    def share(self, process: int, processes: int) -> int:
        """Connections of one process, which together are `width`."""
        return self.width // processes + (process < self.width % processes)

    def processes(self, asked: int, cores: int) -> int:
        """Generator processes: as asked, or as the level needs while half the cores stay free."""
        need = self.rate / RATE_EACH if self.rate else self.concurrency / PLACES_EACH
        many = asked or max(1, min(cores // 2, math.ceil(need)))
        bounds = [bound for bound in (self.width, self.requests) if bound]
        return min([many, *bounds])

    def turns(
        self, seed: int = 0, process: int = 0, processes: int = 1
    ) -> Iterator[tuple[int, float]]:
        """One process's share of the requests, in order: number, and due in seconds from the start.

        In a closed loop all are due at once and wait for a free place.
        """
        turns: Iterator[tuple[int, float]] = enumerate(self._times(seed))
        if self.rate and self.duration:
            turns = takewhile(lambda turn: turn[1] < self.duration, turns)
        return islice(islice(turns, self.requests or None), process, None, processes)

    def _times(self, seed: int) -> Iterator[float]:
        if not self.rate:
            return repeat(0.0)
        if self.arrivals == "poisson":
            rng = Random(f"arrivals {seed} {self.number}")
            gaps = (rng.expovariate(self.rate) for _ in count())
            return accumulate(gaps, initial=0.0)
        return (number / self.rate for number in count())  # divided, not added up: no drift
