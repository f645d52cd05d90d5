"""When each request is meant to be sent.

The schedule is fixed before the first request leaves, and latency counts from it. A server that
stalls therefore cannot hide the requests it held up: they are late from the moment they were due,
not from the moment the generator got round to them ("coordinated omission").

Every process walks the same schedule and takes every n-th turn, so that the traffic as a whole
does not depend on how many processes send it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice, repeat, takewhile
from random import Random

from bench.load.level import Level


@dataclass(frozen=True, slots=True)
class Turn:
    """One request to come: its number in the level, and when it is due, seconds from the start."""

    number: int
    due: float


class Pacer:
    """The turns of a level. In a closed loop all are due at once and wait for a free place."""

    def __init__(self, level: Level, seed: int = 0) -> None:
        self._level = level
        self._seed = seed

    def turns(self, process: int = 0, processes: int = 1) -> Iterator[Turn]:
        """One process's share of the turns, in order."""
        level = self._level
        turns: Iterator[Turn] = map(Turn, count(), self._times())
        if level.rate and level.duration:
            turns = takewhile(lambda turn: turn.due < level.duration, turns)
        return islice(islice(turns, level.requests or None), process, None, processes)

    def _times(self) -> Iterator[float]:
        if not self._level.rate:
            return repeat(0.0)
        return self._poisson() if self._level.arrivals == "poisson" else self._constant()

    def _constant(self) -> Iterator[float]:
        rate = self._level.rate
        return (number / rate for number in count())  # divided, not added up: no drift

    def _poisson(self) -> Iterator[float]:
        rng = Random(f"arrivals {self._seed} {self._level.number}")
        due = 0.0
        while True:
            yield due
            due += rng.expovariate(self._level.rate)
