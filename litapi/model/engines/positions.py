"""The position tables of a NaFlex tower, each grid's resized once, and all in one bank.

The rows of a batch come out of the bank by one gather, and what is gathered by says which rows are
padding. There are few grids of so many patches: where a bank is full, another one begins, and a
batch under way keeps its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

Grid = tuple[int, int]
KEPT_POSITIONS = 32_768  # rows: 75 MB of so400m in bfloat16, of which a CPU holds what is used
Bank = TypeVar("Bank")  # an array or a tensor, on whatever device


class PositionBank(Generic[Bank]):
    """Tables by grid, patches down and across: (down · across, width) each.

    `rows` has them one below the other, and a row of zeros at 0.
    """

    def __init__(self, resize: Callable[[Grid], object], empty: Callable[[int], Bank]) -> None:
        """`resize` makes a table, `empty` room for so many rows."""
        self._resize, self._empty = resize, empty
        self._begin(1)

    def _begin(self, size: int) -> Any:
        """Another bank, which has no table yet."""
        rows: Any = self._empty(size)
        rows[0] = 0
        self.rows: Bank = rows
        self.starts: dict[Grid, int] = {}
        self._used = 1
        return rows

    def index(self, grids: Sequence[Grid], longest: int) -> npt.NDArray[np.int64]:
        """The row of each patch of pictures of these grids: (n, longest), 0 at padding."""
        self._hold(set(grids))
        found = np.zeros((len(grids), longest), np.int64)
        for row, (down, across) in zip(found, grids, strict=True):
            start = self.starts[down, across]
            row[: down * across] = np.arange(start, start + down * across)
        return found

    def _hold(self, grids: set[Grid]) -> None:
        rows: Any = self.rows
        if self._used + _size(grids - self.starts.keys()) > len(rows):
            rows = self._begin(max(KEPT_POSITIONS, 1 + _size(grids)))
        for grid in grids - self.starts.keys():
            end = self._used + _size({grid})
            rows[self._used : end] = self._resize(grid)
            self.starts[grid], self._used = self._used, end


def _size(grids: set[Grid]) -> int:
    return sum(down * across for down, across in grids)


def resized(square: npt.NDArray[np.float32], grid: Grid) -> npt.NDArray[np.float32]:
    """A table (side, side, width) for another grid: bilinear, smoothed where it shrinks.

    As `interpolate(…, antialias=True)` of torch, up to rounding; summed in float64.
    """
    down, across = (_weights(len(square), count) for count in grid)
    table = np.einsum("ij,kl,jlw->ikw", down, across, square.astype(np.float64), optimize=True)
    rows: npt.NDArray[np.float32] = table.reshape(grid[0] * grid[1], -1).astype(np.float32)
    return rows


def _weights(old: int, new: int) -> npt.NDArray[np.float64]:
    """How much each of `old` places counts in each of `new`: (new, old), rows of sum 1."""
    scale = old / new
    centres = scale * (np.arange(new) + 0.5)
    away: npt.NDArray[np.float64] = np.abs(np.arange(old) + 0.5 - centres[:, None]) / max(
        scale, 1.0
    )
    found = np.maximum(1 - away, 0)
    found /= found.sum(axis=1, keepdims=True)
    return found
