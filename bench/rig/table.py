"""Rows of cells as a Markdown table that also reads well as it is."""

from __future__ import annotations

from collections.abc import Sequence


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the head; all cells lean right."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


class Table:
    """Rows that a notebook shows as a table, and everything else as text."""

    def __init__(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.rows = [list(row) for row in rows]
        self._text = markdown([columns, *rows])

    def _repr_markdown_(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return self._text
