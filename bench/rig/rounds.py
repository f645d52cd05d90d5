"""Figures of systems that took turns, round after round: A B C, A B C, …

Whatever slows the machine for a while slows neighbours in a round alike. So two systems are
compared within each round, and the median of those ratios is the result; the extremes stand
beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure that was measured once in each round."""

    rounds: list[float]
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls([round(v, 3) for v in values], median(values), min(values), max(values))

    def cells(self, form: str = ".1f") -> list[str]:
        """Median, least and most, for a table."""
        return [f"{value:{form}}" for value in (self.median, self.low, self.high)]

    def fields(self) -> dict[str, Any]:
        return {k: v if k == "rounds" else round(v, 3) for k, v in asdict(self).items()}


def ratio(values: Sequence[float], to: Sequence[float]) -> float:
    """The median of the ratios within the rounds."""
    return median(one / other for one, other in zip(values, to, strict=True))


@dataclass(frozen=True, slots=True)
class Target:
    """A ratio, and what it was meant to be."""

    name: str
    ratio: float
    at_most: float | None = None
    at_least: float | None = None

    @property
    def met(self) -> bool:
        below = self.at_most is None or self.ratio <= self.at_most
        return below and (self.at_least is None or self.ratio >= self.at_least)

    def line(self) -> str:
        limit = f"≤ {self.at_most:g}" if self.at_most is not None else f"≥ {self.at_least:g}"
        return f"{'met   ' if self.met else 'MISSED'}  {self.name}: {self.ratio:.2f} ({limit})"

    def fields(self) -> dict[str, Any]:
        limits = {"at_most": self.at_most, "at_least": self.at_least}
        given = {name: limit for name, limit in limits.items() if limit is not None}
        return {"name": self.name, "ratio": round(self.ratio, 3), **given, "met": self.met}
