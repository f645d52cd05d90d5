"""A sweep for people: a table, and a picture for each tower. Made from the result's JSON alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from bench.load.plot import COLOURS
from bench.rig.table import markdown

Row = Mapping[str, Any]
COLUMNS = ("tower", "precision", "threads", "batch", "items/s", "least", "most", "GFLOP/item",
           "GFLOP/s", "ceiling", "of ceiling")  # fmt: skip
OF_GPUS = {"MB": "peak_memory_mb", "W": "watts", "J/item": "joules_per_item"}
STYLES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D")
NONE = "–"


class Report:
    """Of one result."""

    def __init__(self, result: Mapping[str, Any]) -> None:
        self._result = result
        self._rows: Sequence[Row] = result["rows"]
        self._gpu = [name for name, key in OF_GPUS.items() if any(key in r for r in self._rows)]

    def text(self) -> str:
        """What was measured on what, and the table, with refusals below it."""
        head = [*COLUMNS, *self._gpu]
        measured = [self._cells(row) for row in self._rows if "refused" not in row]
        refused = [_refusal(row) for row in self._rows if "refused" in row]
        return "\n".join([self.title, "", markdown([head, *measured]), "", *refused])

    @property
    def title(self) -> str:
        """The model and the device."""
        compiled = ", compiled" if self._result["compiled"] else ""
        on_cpu = self._result["device"] == "cpu"
        on = self._result["machine"]["cpu"] if on_cpu else self._result["device_name"]
        return f"{self._result['model']}{compiled}, {on}"

    def save(self, folder: Path, stem: str) -> list[Path]:
        """A PNG for each tower that was measured."""
        paths = []
        for tower in dict.fromkeys(row["tower"] for row in self._rows if "refused" not in row):
            paths.append(folder / f"{stem}-{tower}.png")
            self.figure(tower).savefig(paths[-1])
        return paths

    def figure(self, tower: str) -> Figure:
        """Items a second, and share of the ceiling, against the batch."""
        figure = Figure(figsize=(10.0, 4.5), dpi=110, facecolor="white", layout="constrained")
        figure.suptitle(f"{tower.capitalize()} tower of {self.title}", fontsize="medium")
        rates, shares = figure.subplots(1, 2)
        _axis(rates, "throughput (items/s)")
        _axis(shares, "share of the matrix-product ceiling (%)")
        for look, label, points in self._lines(tower):
            batches = [row["batch"] for row in points]
            rates.plot(batches, [r["items_per_s"]["median"] for r in points], label=label, **look)
            shares.plot(batches, [100 * r["of_ceiling"] for r in points], **look)
        for axes in (rates, shares):
            _batches_on_x(axes)
            axes.set_ylim(bottom=0)
        figure.legend(loc="outside right upper", frameon=False, fontsize="small", handlelength=3)
        return figure

    def _lines(self, tower: str) -> Iterator[tuple[dict[str, Any], str, list[Row]]]:
        """Look, label and points: a colour for each precision, a style for each thread count."""
        rows = [row for row in self._rows if row["tower"] == tower and "refused" not in row]
        precisions = list(dict.fromkeys(row["precision"] for row in rows))
        counts = list(dict.fromkeys(row["threads"] for row in rows))
        for precision in precisions:
            for threads in counts:
                of = (precision, threads)
                points = [row for row in rows if (row["precision"], row["threads"]) == of]
                look = {
                    "color": COLOURS[precisions.index(precision) % len(COLOURS)],
                    "linestyle": STYLES[counts.index(threads) % len(STYLES)],
                    "marker": MARKERS[counts.index(threads) % len(MARKERS)],
                    "markersize": 4,
                }
                if points:
                    yield look, f"{precision}, {_threads(threads)}", points

    def _cells(self, row: Row) -> list[str]:
        rate = row["items_per_s"]
        figures = [rate["median"], rate["low"], rate["high"], row["gflop_per_item"]]
        figures += [row["gflop_per_s"], row["ceiling_gflop_per_s"]]
        cells = [*map(_written, figures), f"{100 * row['of_ceiling']:.0f} %"]
        named = [str(row[name]) for name in COLUMNS[:4]]
        return [*named, *cells, *(_of_gpu(row, OF_GPUS[name]) for name in self._gpu)]


def _refusal(row: Row) -> str:
    names = [row["tower"], row["precision"]]
    names += [_threads(row["threads"]), f"batch {row['batch']}"] if "batch" in row else []
    return f"refused  {', '.join(names)}: {row['refused']}"


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _of_gpu(row: Row, key: str) -> str:
    value = row.get(key)
    return NONE if value is None else _written(value["median"] if key == "watts" else value)


def _written(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _axis(axes: Axes, y: str) -> None:
    axes.set_xlabel("batch (items)")
    axes.set_ylabel(y)
    axes.grid(True, color="#e4e4e4")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _batches_on_x(axes: Axes) -> None:
    """A tick for each batch that was measured."""
    drawn = sorted({float(x) for line in axes.get_lines() for x in np.asarray(line.get_xdata())})
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(drawn, [f"{one:g}" for one in drawn])
