"""The towers in OpenVINO, on a CPU: no compiler, any number of items, the same bits in any company.

Products do not depend on how many rows they are computed with, so an item's row is equal to the
bit alone and among others. What could still change it is padding: a NaFlex picture is always
padded to as many patches as it might have had, masked, and computed only with others of that
length. Padding costs 2 % where pictures fill their patches, which they do: the grid is the largest
that fits.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Generic

import numpy as np
import numpy.typing as npt

from litapi.model.engines import Ids, Items, Rows
from litapi.model.engines.converted import Converted
from litapi.model.engines.positions import PositionBank, resized
from litapi.model.engines.runtime import compiled
from litapi.model.engines.slots import Collect, Slot, Slots, sequences, squares
from litapi.model.pixels import Pixels
from litapi.model.precision import choose_precision
from litapi.model.probes import Probes
from litapi.process import core_kind, processor, version

Inputs = list[npt.NDArray[Any]]


class RequestSlot(Slot):
    """A slot with a request of OpenVINO's, which reads and writes what is in it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.request = model.create_infer_request()


class OpenVinoTower(Generic[Items]):
    """What both have in common."""

    name = "openvino"
    compiled = False  # by a compiler of C++, that is
    device = "cpu"
    depth = 1

    def __init__(self, made: Converted, precision: str, threads: int = 0) -> None:
        """`made` is quantized where `precision` is int8. `threads` 0: all cores."""
        self.precision = precision
        self.arithmetic = arithmetic(precision, made.scales)
        self.parameters = made.parameters
        self.dim = made.dim
        self._probes = made.probes
        model = compiled(made.model, unquantized(precision), threads)
        self.slots = Slots(functools.partial(RequestSlot, model))

    def probes(self) -> Probes:
        """transformers' own forward in float32, computed when this tower was converted."""
        return self._probes

    def relieve(self) -> None:
        """OpenVINO keeps no memory that it could give back."""

    def submit(self, items: Items) -> Collect:
        """n items, at least one; what is returned waits for their rows (n, dim)."""
        return self.slots.submit(functools.partial(self._begin, items))

    @abstractmethod
    def _begin(self, items: Items, slot: RequestSlot) -> Collect: ...


class OpenVinoText(OpenVinoTower[Ids]):
    """The text tower: token ids (n, 64) → rows (n, dim)."""

    def _begin(self, items: Ids, slot: RequestSlot) -> Collect:
        slot.request.start_async([slot.copy(items)], share_inputs=True)
        return functools.partial(_computed, slot)


class OpenVinoImages(OpenVinoTower[Sequence[Pixels]]):
    """The image tower, of a fixed resolution or NaFlex: n pictures → rows (n, dim)."""

    def __init__(self, made: Converted, precision: str, threads: int = 0) -> None:
        super().__init__(made, precision, threads)
        self.positions = None if made.positions is None else _bank(made.positions)

    def _begin(self, items: Sequence[Pixels], slot: RequestSlot) -> Collect:
        """Pictures of other lengths than the first's are begun with when that is done."""
        lengths = [picture.length for picture in items]
        parts = [
            [number for number, own in enumerate(lengths) if own == length]
            for length in dict.fromkeys(lengths)
        ]

        def start(part: list[int]) -> None:
            inputs = self.inputs([items[number] for number in part], slot)
            slot.request.start_async(inputs, share_inputs=True)

        def collect() -> Rows:
            rows = np.empty((len(items), self.dim), np.float32)
            for part in parts:
                if part is not parts[0]:
                    slot.clear()
                    start(part)
                rows[part] = _computed(slot)
            return rows

        start(parts[0])
        return collect

    def inputs(self, items: Sequence[Pixels], slot: Slot) -> Inputs:
        """What the graph takes for pictures of one length: levels, and for NaFlex rows of the
        position table and the mask."""
        if self.positions is None:
            return [squares(items, slot)]
        length = items[0].length
        index = self.positions.index([picture.grid for picture in items], length)
        positions = slot.array((*index.shape, self.dim), np.float32)
        np.take(self.positions.rows, index, axis=0, out=positions, mode="clip")
        return [sequences(items, length, slot), positions, slot.copy((index > 0).astype(np.int64))]


def _computed(slot: RequestSlot) -> Rows:
    slot.request.wait()
    rows: Rows = slot.request.get_output_tensor(0).data.copy()
    return rows


def _bank(square: Rows) -> PositionBank[Rows]:
    width = square.shape[2]
    return PositionBank(
        functools.partial(resized, square), lambda rows: np.empty((rows, width), np.float32)
    )


def unquantized(precision: str) -> str:
    """What a tower of that precision computes in where nothing is quantized."""
    return choose_precision("auto", "cpu") if precision == "int8" else precision


def arithmetic(precision: str, scales: str = "") -> str:
    """What can change the bits of a row, in words: precision, engine, instructions, scales."""
    words = [*dict.fromkeys((precision, unquantized(precision))), f"openvino {version('openvino')}"]
    words += [core_kind(), "+".join(processor("cpu"))]
    return ", ".join([*words, *([f"scales {scales[:16]}"] if scales else [])])
