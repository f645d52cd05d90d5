"""Pictures of a result: throughput and latency of each sweep, cost of each part.

A sweep is drawn by `bench.load.plot`, from the round of median throughput of each system.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure

from bench.compare.point import Points, throughput
from bench.compare.report import parts
from bench.compare.result import Result
from bench.load.plot import COLOURS, Curve, Plot
from bench.load.recording import Recording
from bench.load.summary import Summary


@dataclass(frozen=True, slots=True)
class Line(Curve):
    """A system of a part, by its summaries in place of a recording."""

    summaries: tuple[Summary, ...] = ()

    @property
    def closed(self) -> list[Summary]:
        """Levels with so many in flight."""
        return sorted((s for s in self.summaries if s.concurrency), key=lambda s: s.concurrency)

    @property
    def open(self) -> list[Summary]:
        """Levels with such a rate."""
        return sorted((s for s in self.summaries if s.rate), key=lambda s: s.rate)


def save(result: Result, folder: Path, stem: str) -> list[Path]:
    """Draw all that there is data for."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for scenario in result.scenarios():
        points = result.of(scenario)
        for part in parts(points):
            for name, figure in figures(points, part):
                paths.append(folder / f"{stem}-{scenario}-{_slug(part)}-{name}.png")
                figure.savefig(paths[-1])
    return paths


def figures(points: Points, part: str) -> Iterator[tuple[str, Figure]]:
    """Name and picture of all that a part has data for."""
    lines = [_line(points, part, system) for system in points.systems(part)]
    lines = [one for one in lines if len(one.summaries) > 1]
    plot = Plot(lines)
    if any(one.closed for one in lines):
        yield "throughput", plot.throughput()
        yield "latency", plot.latency()
    if any(one.open for one in lines):
        yield "offered", plot.offered()
    costs = _costs(points, part)
    if len(costs) > 1:
        yield "cost", cost(part, costs)


def _line(points: Points, part: str, system: str) -> Line:
    """Of the levels of a load; the bare towers have none."""
    summaries = []
    for level in points.levels(part, system):
        rounds = sorted(points.some(part, system, level), key=throughput)
        summaries.append(rounds[(len(rounds) - 1) // 2].summary)
    kept = tuple(one for one in summaries if not one.level.startswith("batch"))
    return Line(points.named(part, system), Recording(), kept)


def _costs(points: Points, part: str) -> dict[str, float]:
    """CPU milliseconds for each item: a system's cheapest level, the median of its rounds."""
    found: dict[str, float] = {}
    for system in points.systems(part):
        levels = [points.some(part, system, level) for level in points.levels(part, system)]
        known = [[one.cpu_ms for one in level if one.cpu_ms is not None] for level in levels]
        medians = [median(values) for values in known if values]
        if medians:
            found[points.named(part, system)] = min(medians)
    return found


def cost(part: str, costs: dict[str, float]) -> Figure:
    """A bar for each system."""
    figure = Figure(figsize=(8.0, 0.9 + 0.45 * len(costs)), dpi=130, facecolor="white")
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    bars = axes.barh([*costs], [*costs.values()], color=COLOURS[0], height=0.6)
    axes.bar_label(bars, fmt="%.2f", padding=4)
    axes.set_title(f"Cost of an item ({part})")
    axes.set_xlabel("CPU time of all processes of the system (ms/item)")
    axes.set_xlim(0, 1.15 * max(costs.values()))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _slug(part: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-")
