"""The towers in OpenVINO, on a CPU: no compiler, any number of items, the same bits in any company.

Products do not depend on how many rows they are computed with, so an item's row is equal to the
bit alone and among others. What could still change it is padding: a NaFlex picture is always
padded to as many patches as it might have had, masked, and computed only with others of that
length. Padding costs 2 % where pictures fill their patches, which they do: the grid is the largest
that fits.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from litapi.model.engines import Ids, Rows
from litapi.model.engines.converted import Converted
from litapi.model.engines.positions import PositionBank, resized
from litapi.model.engines.runtime import compiled
from litapi.model.pixels import Pixels
from litapi.model.probes import Probes
from litapi.process import core_kind, processor, version


class OpenVinoTower:
    """What both have in common."""

    name = "openvino"
    compiled = False  # by a compiler of C++, that is
    device = "cpu"

    def __init__(self, made: Converted, precision: str, threads: int = 0) -> None:
        """`made` is quantized where `precision` is int8. `threads` 0: all cores."""
        self.precision = precision
        self.arithmetic = arithmetic(precision, made.scales)
        self.parameters = made.parameters
        self.dim = made.dim
        self._probes = made.probes
        self._request = compiled(made.model, precision, threads).create_infer_request()
        self._turn = threading.Lock()  # a request holds the inputs and outputs of one call

    def probes(self) -> Probes:
        """transformers' own forward in float32, computed when this tower was converted."""
        return self._probes

    def relieve(self) -> None:
        """OpenVINO keeps no memory that it could give back."""

    def _run(self, *inputs: npt.NDArray[Any]) -> Rows:
        with self._turn:
            found = self._request.infer(list(inputs), share_inputs=True)
            rows: Rows = found[0].copy()
            return rows


class OpenVinoText(OpenVinoTower):
    """The text tower."""

    def pooled(self, items: Ids) -> Rows:
        """Token ids (n, 64) → rows (n, dim)."""
        return self._run(np.ascontiguousarray(items))


class OpenVinoImages(OpenVinoTower):
    """The image tower, of a fixed resolution or NaFlex."""

    def __init__(self, made: Converted, precision: str, threads: int = 0) -> None:
        super().__init__(made, precision, threads)
        self.positions = None if made.positions is None else _bank(made.positions)

    def pooled(self, items: Sequence[Pixels]) -> Rows:
        """n pictures → rows (n, dim)."""
        rows = np.empty((len(items), self.dim), np.float32)
        for length in {picture.length for picture in items}:
            alike = [number for number, one in enumerate(items) if one.length == length]
            rows[alike] = self._run(*self.inputs([items[number] for number in alike]))
        return rows

    def inputs(self, items: Sequence[Pixels]) -> list[npt.NDArray[Any]]:
        """What the graph takes for pictures of one length: levels, and for NaFlex rows of the
        position table and the mask."""
        if self.positions is None:
            return [np.stack([picture.patches for picture in items])]
        shape = (len(items), items[0].length)
        levels = np.zeros((*shape, items[0].patches.shape[1]), np.uint8)
        for row, picture in zip(levels, items, strict=True):
            row[: picture.cost] = picture.patches
        index = self.positions.index([picture.grid for picture in items], items[0].length)
        return [levels, self.positions.rows[index], (index > 0).astype(np.int64)]


def _bank(square: Rows) -> PositionBank[Rows]:
    def empty(rows: int) -> Rows:
        bank = np.empty((rows, square.shape[2]), np.float32)
        bank[0] = 0
        return bank

    return PositionBank(lambda grid: resized(square, grid), empty)


def arithmetic(precision: str, scales: str = "") -> str:
    """What can change the bits of a row, in words: precision, engine, instructions, scales."""
    words = [precision, f"openvino {version('openvino')}"]
    words += [core_kind(), "+".join(processor("cpu"))]
    return ", ".join([*words, *([f"scales {scales[:16]}"] if scales else [])])
