"""What one system did at one level in one round, and all points of a scenario."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from bench.load.summary import Summary

Figure = Callable[["Point"], float]


class Missing(Exception):
    """A figure that a target needs was not measured; says which."""


@dataclass(frozen=True, slots=True)
class Point:
    """`cpu_ms` is CPU time of all the system's processes for each item, where it was watched."""

    scenario: str
    part: str
    system: str
    round: int
    items: int  # in a request, or in a batch of the bare towers
    summary: Summary
    cpu_ms: float | None = None

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        return cls(**fields | {"summary": Summary(**fields["summary"])})

    @property
    def level(self) -> str:
        return self.summary.level


class Points:
    """The points of one scenario. `wrong`: systems whose vectors are not right, by part."""

    def __init__(self, points: Iterable[Point], wrong: Iterable[tuple[str, str]] = ()) -> None:
        self._points, self._wrong = list(points), set(wrong)
        self._rounds = 1 + max((one.round for one in self._points), default=0)
        self._found = defaultdict[tuple[str, str, str], list[Point]](list)
        for one in sorted(self._points, key=lambda one: one.round):
            self._found[one.part, one.system, one.level].append(one)

    def __iter__(self) -> Iterator[Point]:
        return iter(self._points)

    def systems(self, part: str) -> list[str]:
        """Those that were measured, in the order of the scenario."""
        return list(dict.fromkeys(system for at, system, _ in self._found if at == part))

    def levels(self, part: str, system: str) -> list[str]:
        """Its levels, in the order of the scenario."""
        return [level for *of, level in self._found if of == [part, system]]

    def at(self, part: str, system: str, level: str) -> list[Point]:
        """A point for each round, in order.

        Raises:
            Missing: a round has none.
        """
        found = self.some(part, system, level)
        if len(found) < self._rounds:
            raise Missing(f"{system} was not measured in every round of {part} at {level}")
        return found

    def some(self, part: str, system: str, level: str) -> list[Point]:
        """A point for each round that has one, in order."""
        return self._found.get((part, system, level), [])

    def middle(self, part: str, system: str, level: str) -> Summary:
        """The round of median throughput: one real run, not a mixture."""
        rounds = sorted(self.some(part, system, level), key=throughput)
        return rounds[(len(rounds) - 1) // 2].summary

    def right(self, part: str, level: str, names: Sequence[str]) -> list[str]:
        """Those of the systems with right vectors and not one error at a level.

        Raises:
            Missing: there is none.
        """
        found = [name for name in names if self._is_right(part, level, name)]
        if not found:
            raise Missing(f"no right baseline was measured in {part} at {level}")
        return found

    def is_wrong(self, part: str, system: str) -> bool:
        return (part, system) in self._wrong

    def named(self, part: str, system: str) -> str:
        """A system that is quick because its vectors are wrong is seen as one."""
        return f"{system} (wrong vectors)" if self.is_wrong(part, system) else system

    def _is_right(self, part: str, level: str, system: str) -> bool:
        found = self.some(part, system, level)
        good = len(found) == self._rounds and not any(one.summary.errors_pct for one in found)
        return good and not self.is_wrong(part, system)

    def best(self, part: str, system: str, figure: Figure) -> list[float]:
        """The largest figure over all levels of a system, for each round.

        Raises:
            Missing: there is none.
        """
        levels = self.levels(part, system)
        if not levels:
            raise Missing(f"{system} was not measured in {part}")
        rounds = zip(*(self.at(part, system, level) for level in levels), strict=True)
        return [max(map(figure, one)) for one in rounds]


def throughput(point: Point) -> float:
    return point.summary.items_per_s


def latency(share: str) -> Figure:
    """A percentile such as p99, in ms; NaN, which meets no target, where nothing was answered."""
    return lambda point: (point.summary.latency_ms or {}).get(share, float("nan"))
