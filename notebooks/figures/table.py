"""Rows that a notebook shows as a table, and everything else as text."""

from __future__ import annotations

from collections.abc import Sequence

from bench.rig.command import markdown


class Table:
    """`rows` are cells below those of `columns`."""

    def __init__(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.rows = [list(row) for row in rows]
        self._text = markdown([columns, *rows])

    def _repr_markdown_(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return self._text
