"""Charts that show themselves in a notebook: light, labelled, nothing cut off, small.

A `Chart` is matplotlib's Figure and says what it looks like as a PNG, so that neither pyplot nor a
notebook's magic is needed. The PNG has a palette: a chart has few colours, and a notebook with ten
of them stays below 300 KB.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from PIL import Image

COLOURS = (
    "#1f5fb4", "#d1495b", "#2e8b57", "#8a5a9e", "#c77f1a", "#4d4d4d", "#1b9e9e", "#a0522d",
)  # fmt: skip
GROUND = "#e4e4e4"
SHADES = 128
DOTS = 100  # an inch, where a notebook shows it

Numbers = Sequence[float] | npt.NDArray[Any]


class Chart(Figure):
    """A figure that a notebook shows as it is."""

    shades = SHADES

    def _repr_png_(self) -> bytes:
        drawn, small = io.BytesIO(), io.BytesIO()
        self.savefig(drawn, format="png", dpi=DOTS)
        picture = Image.open(drawn).convert("RGB")
        rare_ones_too = Image.Quantize.MAXCOVERAGE
        picture = picture.quantize(self.shades, rare_ones_too, dither=Image.Dither.NONE)
        picture.save(small, "PNG", optimize=True)
        return small.getvalue()

    def __repr__(self) -> str:
        """What a reader gets in place of the picture."""
        titles = [title for axes in self.axes if (title := axes.get_title())]
        return f"chart: {'; '.join(titles).replace(chr(10), ' ')}"


def canvas(title: str, x: str, y: str, height: float = 4.5, grid: str = "both") -> Chart:
    """A chart with one set of axes; `grid` is "both", "x", "y" or "" for none."""
    chart = Chart(figsize=(8.0, height), dpi=130, facecolor="white", layout="constrained")
    axes = chart.add_subplot()
    axes.set_title("\n".join(textwrap.wrap(title, 52)))
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if grid:
        axes.grid(True, axis=grid, color=GROUND)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return chart


def finished(chart: Chart) -> Chart:
    """With a legend beside the axes, where it covers no point."""
    if chart.axes[0].get_legend_handles_labels()[0]:
        chart.legend(loc="outside right upper", frameon=False, fontsize="small", handlelength=3)
    return chart


def round_numbers(axis: Axis) -> None:
    """1, 2, 5, 10 … on a logarithmic axis, written out."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def curves(
    series: Mapping[str, tuple[Numbers, Numbers]],
    title: str,
    x: str,
    y: str,
    log: str = "",
    marker: str = "o",
    nought: bool = True,
) -> Chart:
    """A line for each name. `log` names the logarithmic axes: "", "x", "y" or "xy".

    The y axis begins at `nought`, or where the lines do.
    """
    chart = canvas(title, x, y)
    axes = chart.axes[0]
    for place, (name, (across, up)) in enumerate(series.items()):
        axes.plot(
            across, up, marker=marker, markersize=4, color=COLOURS[place % len(COLOURS)], label=name
        )
    for name in log:
        getattr(axes, f"set_{name}scale")("log")
        round_numbers(getattr(axes, f"{name}axis"))
    if nought and "y" not in log:
        from_nought(axes)
    return finished(chart)


def reliability(series: Mapping[str, tuple[Numbers, Numbers, Numbers]], title: str) -> Chart:
    """For each name: what was said, what is so, and the weight of each bin, which sizes its point.

    On the grey line a probability means what it says; above it the model says too little.
    """
    chart = canvas(title, "probability that was given", "share of these pairs that match", 6.0)
    axes = chart.axes[0]
    axes.plot(
        [0, 1], [0, 1], color=COLOURS[5], linestyle="--", linewidth=1, label="as it should be"
    )
    for place, (name, (said, true, weight)) in enumerate(series.items()):
        colour, size = COLOURS[place % len(COLOURS)], 20 + 400 * np.sqrt(np.asarray(weight))
        axes.plot(said, true, color=colour, linewidth=1, label=name)
        axes.scatter(said, true, size, color=colour, alpha=0.7)
    return finished(chart)


def bars(values: Mapping[str, float], title: str, x: str, form: str = "{:.2f}") -> Chart:
    """A bar for each name, the first on top; each says its value."""
    chart = canvas(title, x, "", 1.3 + 0.4 * len(values), grid="")
    axes = chart.axes[0]
    drawn = axes.barh([*values], [*values.values()], color=COLOURS[0], height=0.6)
    axes.bar_label(drawn, fmt=form, padding=4)
    axes.set_xlim(min(0.0, *values.values()), 1.15 * max([1e-9, *values.values()]))
    axes.invert_yaxis()
    return chart


def groups(values: Mapping[str, Mapping[str, float]], title: str, x: str, y: str) -> Chart:
    """Bars side by side: a group for each name, a colour for each name inside."""
    chart = canvas(title, x, y, grid="y")
    axes = chart.axes[0]
    inside = list(dict.fromkeys(name for group in values.values() for name in group))
    width = 0.8 / len(inside)
    for place, name in enumerate(inside):
        at = np.arange(len(values)) + (place - (len(inside) - 1) / 2) * width
        heights = [group.get(name, 0.0) for group in values.values()]
        axes.bar(at, heights, width * 0.95, color=COLOURS[place % len(COLOURS)], label=name)
    axes.set_xticks(range(len(values)), [*values])
    return finished(chart)


def stack(values: Mapping[str, Mapping[str, float]], title: str, x: str, y: str) -> Chart:
    """A bar for each name, made of the parts inside it, in their order."""
    chart = canvas(title, x, y, grid="y")
    axes = chart.axes[0]
    parts = list(dict.fromkeys(name for bar in values.values() for name in bar))
    base = np.zeros(len(values))
    for place, part in enumerate(parts):
        heights = np.array([bar.get(part, 0.0) for bar in values.values()])
        colour = COLOURS[place % len(COLOURS)]
        axes.bar([*values], heights, 0.6, bottom=base, color=colour, label=part)
        base += heights
    return finished(chart)


def histogram(series: Mapping[str, Numbers], title: str, x: str, bins: int = 40) -> Chart:
    """How often each value occurs: an outline for each name, over shared bins."""
    chart = canvas(title, x, "items")
    everything = np.concatenate([np.asarray(values) for values in series.values()])
    low, high = float(everything.min()), float(everything.max())
    edges = np.linspace(low, high if high > low else low + 1e-6, bins + 1)
    for place, (name, values) in enumerate(series.items()):
        colour = COLOURS[place % len(COLOURS)]
        chart.axes[0].hist(
            values, edges.tolist(), histtype="step", linewidth=1.6, color=colour, label=name
        )
    return finished(chart)


def heat(
    values: npt.NDArray[Any],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    unit: str,
    axes_named: tuple[str, str] = ("", ""),
    form: str = "{:.2f}",
) -> Chart:
    """A coloured table; `values` is (rows, columns), `axes_named` names rows and columns."""
    down, across = axes_named
    chart = canvas(title, across, down, 1.8 + 0.36 * len(rows), grid="")
    axes = chart.axes[0]
    shown = axes.imshow(values, cmap="Blues", aspect="auto")
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    middle = (float(values.min()) + float(values.max())) / 2
    for (row, column), value in np.ndenumerate(values):
        ink = "white" if value > middle else "black"
        text = form.format(value)
        axes.text(column, row, text, ha="center", va="center", color=ink, fontsize="small")
    chart.colorbar(shown, label=unit)
    return chart


def spans(axes: Axes, parts: Mapping[str, tuple[float, float]]) -> None:
    """Shade stretches of the x axis, each with its name on top."""
    for name, (start, end) in parts.items():
        axes.axvspan(start, end, color="#f3d9a4", alpha=0.6, zorder=0)
        middle, top = (start + end) / 2, axes.get_ylim()[1]
        axes.text(middle, top, name, ha="center", va="top", fontsize="small")


def from_nought(axes: Axes) -> None:
    values = drawn(axes)
    axes.set_ylim(min([0.0, *values]), 1.08 * max(values, default=0) or 1)


def drawn(axes: Axes) -> list[float]:
    """The heights of all points of all lines."""
    return [float(y) for line in axes.get_lines() for y in np.asarray(line.get_ydata())]
