"""Pictures of recordings: a line for each file, a PNG for each question that the files answer.

    python -m bench.load.plot run.jsonl --out pictures
    python -m bench.load.plot siglit=one.jsonl flask=two.jsonl --out pictures

throughput.png  what concurrency brings          latency.png  and what it costs
offered.png     when an open loop falls behind   cdf.png      the whole spread of latencies
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from bench.load.recording import Recording, RecordingError
from bench.load.summary import Summary
from bench.rig.chart import COLOURS as COLOURS
from bench.rig.chart import Chart, canvas, finished, round_numbers

SHARES = {"p50": ("P50", "-"), "p95": ("P95", "--"), "p99": ("P99", ":")}
LOST = "hollow: requests were lost"
EMPTY: dict[str, Any] = {"markerfacecolor": "white", "zorder": 3}
GREY = "#4d4d4d"
SPAN = 4.0  # largest over smallest from which an axis counts in powers


@dataclass(frozen=True, slots=True)
class Curve:
    """A recording under its name in the legend."""

    name: str
    recording: Recording

    @property
    def closed(self) -> list[Summary]:
        """Levels with so many in flight, in order."""
        return sorted((s for s in self._levels() if s.concurrency), key=lambda s: s.concurrency)

    @property
    def open(self) -> list[Summary]:
        """Levels with such a rate, in order."""
        return sorted((s for s in self._levels() if s.rate), key=lambda s: s.rate)

    def _levels(self) -> list[Summary]:
        return [Summary.of(stage) for stage in self.recording.measured if stage.samples]


class Plot:
    """The pictures of some recordings."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        self._curves = curves

    def save(self, folder: Path) -> list[Path]:
        """Draw all that there is data for."""
        folder.mkdir(parents=True, exist_ok=True)
        drawn: list[tuple[str, Callable[[], Chart], bool]] = [
            ("throughput", self.throughput, any(c.closed for c in self._curves)),
            ("latency", self.latency, any(c.closed for c in self._curves)),
            ("offered", self.offered, any(c.open for c in self._curves)),
            ("cdf", self.cdf, any(c.closed or c.open for c in self._curves)),
        ]
        paths = []
        for name, draw, wanted in drawn:
            if wanted:
                paths.append(folder / f"{name}.png")
                draw().savefig(paths[-1])
        return paths

    def throughput(self) -> Chart:
        """Items a second against concurrency."""
        figure, axes = _canvas("Throughput", "requests in flight", "throughput (items/s)")
        for curve, colour in self._coloured():
            x = [one.concurrency for one in curve.closed]
            y = [one.items_per_s for one in curve.closed]
            if x:
                (line,) = axes.plot(x, y, "o-", color=colour, label=curve.name)
                _hollow(axes, line, [one.errors_pct for one in curve.closed])
        _explain(axes)
        _from_nought(axes)
        _levels_on_x(axes, [one.concurrency for c in self._curves for one in c.closed])
        return finished(figure)

    def latency(self, shares: Sequence[str] = tuple(SHARES)) -> Chart:
        """Percentiles against concurrency."""
        figure, axes = _canvas("Latency", "requests in flight", "latency (ms)")
        for curve, colour in self._coloured():
            points = [(float(one.concurrency), one) for one in curve.closed]
            self._percentiles(axes, curve, colour, points, shares)
        _explain(axes)
        _powers_on_y(axes)
        _levels_on_x(axes, [one.concurrency for c in self._curves for one in c.closed])
        return finished(figure)

    def offered(self) -> Chart:
        """Percentiles against the rate that was asked for."""
        figure, axes = _canvas(
            "Latency of an open loop, from the scheduled time", "offered rate (requests/s)",
            "latency (ms)",
        )  # fmt: skip
        for curve, colour in self._coloured():
            points = [(one.rate, one) for one in curve.open]
            self._percentiles(axes, curve, colour, points, tuple(SHARES))
        _explain(axes)
        _powers_on_y(axes)
        _levels_on_x(axes, [one.rate for c in self._curves for one in c.open])
        return finished(figure)

    def cdf(self) -> Chart:
        """Share of answers within a latency, a line for each level."""
        figure, axes = _canvas("Latency, whole spread", "latency (ms)", "share of good answers (%)")
        for curve, colour in self._coloured():
            stages = [stage for stage in curve.recording.measured if stage.samples]
            for place, stage in enumerate(stages):
                latencies = np.sort([1e3 * one.latency for one in stage.samples if one.good])
                share = 100 * np.arange(1, len(latencies) + 1) / max(1, len(latencies))
                fade = 1 - 0.75 * place / len(stages)
                name = f"{curve.name}: {stage.level.name}"
                axes.plot(latencies, share, color=colour, alpha=fade, label=name, drawstyle="steps")
        axes.set_xscale("log")
        round_numbers(axes.xaxis)
        axes.set_ylim(0, 101)
        return finished(figure)

    def _coloured(self) -> list[tuple[Curve, str]]:
        return [(c, COLOURS[i % len(COLOURS)]) for i, c in enumerate(self._curves)]

    @staticmethod
    def _percentiles(
        axes: Axes,
        curve: Curve,
        colour: str,
        points: list[tuple[float, Summary]],
        shares: Sequence[str],
    ) -> None:
        shown = [(x, one.latency_ms, one.errors_pct) for x, one in points if one.latency_ms]
        for name in shares if shown else ():
            label, style = SHARES[name]
            x, y = [x for x, *_ in shown], [spread[name] for _, spread, _ in shown]
            name = f"{curve.name}: {label}"
            (line,) = axes.plot(x, y, f"o{style}", color=colour, label=name, markersize=4)
            _hollow(axes, line, [errors for *_, errors in shown])


def _canvas(title: str, x: str, y: str) -> tuple[Chart, Axes]:
    chart = canvas(title, x, y)
    return chart, chart.axes[0]


def _hollow(axes: Axes, line: Line2D, errors: Sequence[float]) -> None:
    """A point at which requests were lost is seen as one: what was lost was not computed."""
    points = zip(np.asarray(line.get_xdata()), np.asarray(line.get_ydata()), errors, strict=True)
    lost = [(x, y) for x, y, percent in points if percent > 0]
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
    values = _drawn(axes)
    if values and min(values) > 0 and max(values) / min(values) >= SPAN:
        axes.set_yscale("log")
        round_numbers(axes.yaxis)
    else:
        _from_nought(axes)


def _from_nought(axes: Axes) -> None:
    axes.set_ylim(0, 1.08 * max(_drawn(axes), default=0) or 1)


def _drawn(axes: Axes) -> list[float]:
    return [float(y) for line in axes.get_lines() for y in np.asarray(line.get_ydata())]


def named(text: str) -> tuple[str, Path]:
    """`name=file` or a file, which is then called by its stem."""
    name, equals, path = text.partition("=")
    return (name, Path(path)) if equals else (Path(text).stem, Path(text))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser("python -m bench.load.plot", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("files", nargs="+", type=named, metavar="[NAME=]FILE.jsonl")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where PNGs go")
    options = parser.parse_args(arguments)
    try:
        curves = [Curve(name, Recording.read(path)) for name, path in options.files]
    except (OSError, RecordingError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    for path in Plot(curves).save(options.out):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
