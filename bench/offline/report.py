"""Rows of either command as one table: a column for each figure that was measured.

A row is as JSON holds it. One of `bench.offline.precision` holds all its batches; it is several
lines of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bench.rig.command import markdown

Row = Mapping[str, Any]
NONE = "–"


def _recalls(row: Row) -> str:
    found = row["demo_quality"]["recall"]["found"].values()
    return " / ".join(f"{way['recall@1']:.3f}" for way in found)


COLUMNS: Mapping[str, Callable[[Row], object]] = {
    "tower": lambda row: row["tower"],
    "precision": lambda row: precision(row),
    "threads": lambda row: row["threads"],
    "batch": lambda row: row["batch"],
    "items/s": lambda row: row["items_per_s"]["median"],
    "least": lambda row: row["items_per_s"]["low"],
    "most": lambda row: row["items_per_s"]["high"],
    "GFLOP/item": lambda row: row["gflop_per_item"],
    "GFLOP/s": lambda row: row["gflop_per_s"],
    "ceiling": lambda row: row["ceiling_gflop_per_s"],
    "of ceiling": lambda row: f"{100 * row['of_ceiling']:.0f} %",
    "GPU MB": lambda row: row["peak_memory_mb"],
    "W": lambda row: row["watts"]["median"],
    "J/item": lambda row: row["joules_per_item"],
    "ratio": lambda row: f"{row['ratio']:.2f}",
    "cosine": lambda row: f"{row['cosine']['worst']:.6f}",
    "recall@1": _recalls,
    "MB": lambda row: row["resident_mb"],
    "of it own": lambda row: row["private_mb"],
    "load s": lambda row: f"{row['load_s']:.0f}",
}


def table(rows: Sequence[Row]) -> str:
    """The table, and below it what was refused and why."""
    return "\n".join([markdown(lines(rows)), *refusals(rows)])


def lines(rows: Sequence[Row]) -> list[Sequence[str]]:
    """The cells of the table, its head first."""
    measured = [one for row in rows for one in _measured(row)]
    cells = {name: [_cell(figure, line) for line in measured] for name, figure in COLUMNS.items()}
    shown = {name: column for name, column in cells.items() if {*column} - {NONE}}
    return [[*shown], *zip(*shown.values(), strict=True)]


def refusals(rows: Sequence[Row]) -> list[str]:
    """What was refused and why."""
    return [f"refused  {_named(row)}: {row['refused']}" for row in rows if "refused" in row]


def _measured(row: Row) -> Iterator[Row]:
    if "batches" in row:
        yield from ({**row, "batch": name} | figures for name, figures in row["batches"].items())
    elif "refused" not in row:
        yield row


def _cell(figure: Callable[[Row], object], row: Row) -> str:
    try:
        value = figure(row)
    except KeyError:
        return NONE
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _named(row: Row) -> str:
    names = [row["tower"], precision(row)]
    if "batch" in row:
        names += [f"{row['threads']} threads", f"batch {row['batch']}"]
    return ", ".join(names)


def precision(row: Row) -> str:
    """With the engine, or whether the tower is compiled, where the row says it."""
    words = (row["precision"], row.get("engine"), "compiled" if row.get("compiled") else "")
    return " ".join(filter(None, words))
