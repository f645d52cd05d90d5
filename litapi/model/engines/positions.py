"""The position tables of a NaFlex tower, resized for a grid once and kept.

Keeps the grids used last, bounded by rows, for a table is as large as its grid.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

Grid = tuple[int, int]
Table = TypeVar("Table")  # a tensor or an array, on whatever device
KEPT_POSITIONS = 32_768  # rows of resized position tables kept: 75 MB of so400m in bfloat16


class PositionTables(Generic[Table]):
    """Tables by grid, patches down and across: (down · across, width) each."""

    def __init__(self, resize: Callable[[Grid], Table], rows: int = KEPT_POSITIONS) -> None:
        self.resize = resize
        self.rows = rows
        self.kept: OrderedDict[Grid, Table] = OrderedDict()
        self.held = 0

    def __getitem__(self, grid: Grid) -> Table:
        found = self.kept.get(grid)
        if found is None:
            found = self.kept[grid] = self.resize(grid)
            self.held += grid[0] * grid[1]
            self._forget()
        else:
            self.kept.move_to_end(grid)
        return found

    def _forget(self) -> None:
        while self.held > self.rows and len(self.kept) > 1:
            (down, across), _ = self.kept.popitem(last=False)
            self.held -= down * across


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
