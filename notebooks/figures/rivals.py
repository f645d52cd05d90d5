"""The systems of a comparison side by side, out of all the files that `bench.compare` left.

A scenario may have been measured more than once; what was measured last is what is shown.
Of several rounds each level shows the one of median throughput, so that a row is one real run.
"""

from __future__ import annotations

from pathlib import Path

from bench.compare.point import Points
from bench.compare.result import Result
from bench.load.summary import Summary
from bench.rig.result_file import RESULTS
from notebooks.figures import plot
from notebooks.figures.chart import Chart
from notebooks.figures.latency import level_table
from notebooks.figures.table import Table

COMMAND = "python -m bench.compare {}"


class Rivals:
    """One part of one scenario; empty where no file holds it."""

    def __init__(self, scenario: str, part: str, folder: Path = RESULTS) -> None:
        self.scenario, self.part = scenario, part
        found = [one for one in comparisons(folder) if scenario in one.scenarios()]
        self._result = max(found, key=lambda one: _weight(one, scenario), default=None)
        self._points = self._result.of(scenario) if self._result else Points([])

    def __bool__(self) -> bool:
        return bool(self.systems())

    def __repr__(self) -> str:
        if not self or self._result is None:
            command = COMMAND.format(self.scenario)
            return f"{self.scenario} is not in bench/results yet: run `{command}` first."
        machine = self._result.head["machine"]
        where = f"{machine['cores']} cores of {machine['cpu']}"
        return f"{self.scenario}, {self.part}: measured on {self._result.head['date']}, {where}."

    def systems(self) -> dict[str, list[Summary]]:
        """The levels of each system; the bare towers have none."""
        return plot.systems(self._points, self.part)

    def table(self) -> Table:
        """A row for each system and level."""
        return level_table(self.systems())

    def curves(self) -> list[Chart]:
        """Throughput and latency against requests in flight."""
        found = self.systems()
        return [plot.throughput(found), plot.latency(found, ("p95",))] if found else []

    def remarks(self) -> list[str]:
        """What was left out, failed or gave wrong vectors, and why."""
        if self._result is None:
            return []
        noted = [*self._result.failed, *self._result.wrong, *self._result.skipped]
        here = [one for one in noted if (one.scenario, one.part) == (self.scenario, self.part)]
        return [f"{one.system}: {one.reason}" for one in here]


def comparisons(folder: Path = RESULTS) -> list[Result]:
    """All of a folder."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(Result.read(path))
        except ValueError:  # a result of something else
            continue
    return found


def _weight(result: Result, scenario: str) -> tuple[str, int]:
    """The later day, and of one day the more points."""
    return str(result.head["date"]), len([*result.of(scenario)])
