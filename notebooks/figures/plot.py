"""Throughput and latency of systems side by side, a line for each; and pictures of result files.

    python -m notebooks.figures.plot bench/results/compare-base-text-cpu.json

draws what a file of `bench.compare` or `bench.offline` holds as PNGs beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from bench.compare.point import Points
from bench.compare.result import Result
from bench.load.summary import Summary
from bench.rig.result_file import slug
from notebooks.figures.chart import (
    COLOURS,
    Chart,
    canvas,
    curves,
    drawn,
    finished,
    from_nought,
    round_numbers,
)

SHARES = {"p50": ("P50", "-"), "p95": ("P95", "--"), "p99": ("P99", ":")}
LOST = "hollow: requests were lost"
EMPTY: dict[str, Any] = {"markerfacecolor": "white", "zorder": 3}
GREY = "#4d4d4d"
SPAN = 4.0  # largest over smallest from which an axis counts in powers

Systems = Mapping[str, Sequence[Summary]]  # the levels of each, under its name in the legend


def systems(points: Points, part: str) -> dict[str, list[Summary]]:
    """The levels of each system in a part, each of its median round; the bare towers have none."""
    found = {}
    for name in points.systems(part):
        levels = [points.middle(part, name, level) for level in points.levels(part, name)]
        if asked := [one for one in levels if one.concurrency or one.rate]:
            found[points.named(part, name)] = asked
    return found


def throughput(systems: Systems) -> Chart:
    """Items a second against concurrency."""
    chart = canvas("Throughput", "requests in flight", "throughput (items/s)")
    axes = chart.axes[0]
    for (name, levels), colour in zip(_closed(systems).items(), _colours(), strict=False):
        x, y = [one.concurrency for one in levels], [one.items_per_s for one in levels]
        (line,) = axes.plot(x, y, "o-", color=colour, label=name)
        _hollow(axes, line, levels)
    _explain(axes)
    from_nought(axes)
    _levels_on_x(axes, [one.concurrency for levels in _closed(systems).values() for one in levels])
    return finished(chart)


def latency(systems: Systems, shares: Sequence[str] = tuple(SHARES)) -> Chart:
    """Percentiles against concurrency."""
    return _percentiles(_closed(systems), "Latency", "requests in flight", "concurrency", shares)


def offered(systems: Systems) -> Chart:
    """Percentiles against the rate that was asked for."""
    title = "Latency of an open loop, from the scheduled time"
    opened = _sorted(systems, "rate")
    return _percentiles(opened, title, "offered rate (requests/s)", "rate", tuple(SHARES))


def _percentiles(systems: Systems, title: str, x: str, by: str, shares: Sequence[str]) -> Chart:
    chart = canvas(title, x, "latency (ms)")
    axes = chart.axes[0]
    for (name, levels), colour in zip(systems.items(), _colours(), strict=False):
        answered = [one for one in levels if one.latency_ms]
        for share in shares if answered else ():
            label, style = SHARES[share]
            at = [getattr(one, by) for one in answered]
            up = [(one.latency_ms or {})[share] for one in answered]
            named = f"{name}: {label}"
            (line,) = axes.plot(at, up, f"o{style}", color=colour, label=named, markersize=4)
            _hollow(axes, line, answered)
    _explain(axes)
    _powers_on_y(axes)
    _levels_on_x(axes, [getattr(one, by) for levels in systems.values() for one in levels])
    return finished(chart)


def _closed(systems: Systems) -> dict[str, list[Summary]]:
    return _sorted(systems, "concurrency")


def _sorted(systems: Systems, by: str) -> dict[str, list[Summary]]:
    """The levels that were asked for by that, in order."""
    found = {
        name: sorted((one for one in levels if getattr(one, by)), key=lambda one: getattr(one, by))
        for name, levels in systems.items()
    }
    return {name: levels for name, levels in found.items() if levels}


def _colours() -> Iterator[str]:
    while True:
        yield from COLOURS


def _hollow(axes: Axes, line: Line2D, levels: Sequence[Summary]) -> None:
    """A point at which requests were lost is seen as one: what was lost was not computed."""
    points = zip(np.asarray(line.get_xdata()), np.asarray(line.get_ydata()), levels, strict=True)
    lost = [(x, y) for x, y, level in points if level.errors_pct > 0]
    if lost:
        x, y = zip(*lost, strict=True)
        axes.plot(x, y, "o", color=line.get_color(), markersize=line.get_markersize(), **EMPTY)


def _explain(axes: Axes) -> None:
    if any(line.get_markerfacecolor() == EMPTY["markerfacecolor"] for line in axes.get_lines()):
        axes.plot([], [], "o", color=GREY, label=LOST, **EMPTY)


def _levels_on_x(axes: Axes, levels: Sequence[float]) -> None:
    """Ticks where something was measured, and nowhere else."""
    ticks = sorted(set(levels))
    if ticks and ticks[-1] / ticks[0] >= SPAN:
        axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, [f"{one:g}" for one in ticks])


def _powers_on_y(axes: Axes) -> None:
    """A logarithmic axis where values differ much; else one that begins at zero."""
    values = drawn(axes)
    if values and min(values) > 0 and max(values) / min(values) >= SPAN:
        axes.set_yscale("log")
        round_numbers(axes.yaxis)
    else:
        from_nought(axes)


# -- pictures of result files --------------------------------------------------------------------


def pictures(path: Path) -> Iterator[tuple[str, Chart]]:
    """Name and chart of whatever a result file has curves of.

    Raises:
        ValueError: it is of neither command.
    """
    fields = orjson.loads(path.read_bytes())
    if "longest" in fields:
        yield from _towers(fields)
        return
    result = Result.read(path)
    for scenario in result.scenarios():
        points = result.of(scenario)
        for part in dict.fromkeys(one.part for one in points):
            lines = {n: levels for n, levels in systems(points, part).items() if len(levels) > 1}
            name = f"{scenario}-{slug(part)}"
            if _closed(lines):
                yield f"{name}-throughput", throughput(lines)
                yield f"{name}-latency", latency(lines)
            if _sorted(lines, "rate"):
                yield f"{name}-offered", offered(lines)


def _towers(fields: Mapping[str, Any]) -> Iterator[tuple[str, Chart]]:
    """Items a second of each tower against the batch, by precision and threads."""
    measured = [row for row in fields["rows"] if "refused" not in row]
    for tower in dict.fromkeys(row["tower"] for row in measured):
        lines: dict[str, tuple[list[float], list[float]]] = {}
        for row in (one for one in measured if one["tower"] == tower):
            x, y = lines.setdefault(f"{row['precision']}, {row['threads']} threads", ([], []))
            x.append(row["batch"])
            y.append(row["items_per_s"]["median"])
        title = f"{tower.capitalize()} tower of {fields['model']}"
        yield tower, curves(lines, title, "batch (items)", "throughput (items/s)", log="x")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m notebooks.figures.plot", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", type=Path, help="a result, such as bench/results/compare-cpu.json")
    path: Path = parser.parse_args(arguments).file
    for name, chart in pictures(path):
        picture = path.with_name(f"{path.stem}-{name}.png")
        chart.savefig(picture)
        print(picture)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
