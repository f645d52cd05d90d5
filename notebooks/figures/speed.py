"""Speed and memory of the precisions, as charts and a table, out of `bench.offline.precision`.

`fields` is that result as JSON holds it. A precision that the machine refused has no figures; it
stays in the table with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.load.summary import NOTHING
from litapi.quality.fidelity import Fidelity
from notebooks.figures.chart import Chart, groups
from notebooks.figures.table import Table

Fields = Mapping[str, Any]
COLUMNS = (
    "tower", "precision", "items/s, one by one", "items/s, batches of 8", "ratio", "cosine, worst",
    "memory MB", "start s",
)  # fmt: skip


def table(fields: Fields) -> Table:
    """A row for each tower and precision; the ratio is that of the larger batch."""
    return Table(COLUMNS, [_row(row) for row in fields["rows"]])


def speed(fields: Fields) -> Chart:
    """Items a second over the baseline's, one group for each precision."""
    ratios = {
        name: {tower: _ratio(row) for tower, row in towers.items()}
        for name, towers in _by_name(fields).items()
    }
    title = f"Speed of each precision ({fields['model']})"
    return _leaning(groups(ratios, title, "", f"items/s ÷ {fields['baseline']} (ratio)"))


def memory(fields: Fields) -> Chart:
    """Resident megabytes of a process with one tower."""
    held = {
        name: {tower: float(row["resident_mb"]) for tower, row in towers.items()}
        for name, towers in _by_name(fields).items()
    }
    title = f"Memory of a process with one tower ({fields['model']})"
    return _leaning(groups(held, title, "", "resident memory (MB)"))


def choice(fields: Fields) -> str:
    """The fastest precision of each tower, of those that pass the gate on the demo's pairs."""
    found = []
    for tower in dict.fromkeys(row["tower"] for row in fields["rows"]):
        able = [row for row in _able(fields) if row["tower"] == tower and _keeps(row)]
        best = max(able, key=_ratio, default=None)
        found += [f"{tower}: {name(best)}, {_ratio(best):.1f} × the baseline"] if best else []
    return f"The fastest that passes the gate: {'; '.join(found)}."


def name(row: Fields) -> str:
    """The precision, and whether the tower is compiled."""
    words = (row["precision"], row.get("engine"), "compiled" if row.get("compiled") else "")
    return ", ".join(filter(None, words))


def _able(fields: Fields) -> Iterator[Fields]:
    return (row for row in fields["rows"] if "refused" not in row)


def _by_name(fields: Fields) -> dict[str, dict[str, Fields]]:
    found: dict[str, dict[str, Fields]] = {}
    for row in _able(fields):
        found.setdefault(name(row), {})[row["tower"]] = row
    return found


def _ratio(row: Fields) -> float:
    return float(list(row["batches"].values())[-1]["ratio"])


def _keeps(row: Fields) -> bool:
    """Whether the gate lets it pass; the baseline itself is not judged."""
    quality = row.get("demo_quality")
    return quality is not None and Fidelity(**quality).passed


def _row(row: Fields) -> list[str]:
    if "refused" in row:
        return [row["tower"], name(row), *[NOTHING] * 5, "not on this machine"]
    rates = [f"{one['items_per_s']['median']:.1f}" for one in row["batches"].values()]
    return [
        row["tower"],
        name(row),
        rates[0],
        rates[-1],
        f"{_ratio(row):.2f}",
        f"{row['cosine']['worst']:.5f}",
        str(row["resident_mb"]),
        f"{row['load_s']:.0f}",
    ]


def _leaning(chart: Chart) -> Chart:
    """With names that do not run into each other."""
    chart.axes[0].tick_params(axis="x", rotation=30)
    for label in chart.axes[0].get_xticklabels():
        label.set_horizontalalignment("right")
    return chart
