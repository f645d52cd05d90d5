"""What the batches under way are written in: host memory that is kept from one batch to the next.

A batch is computed in two halves. The first writes it into a free slot and begins; the second waits
for its rows and frees the slot. Between them the caller may begin with another batch in another
slot, or write an answer: a GPU, or an engine's own threads, go on meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from litapi.model.pixels import Pixels

Levels = npt.NDArray[np.uint8]
Memory = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.float32]
Collect = Callable[[], Rows]  # waits for the rows of a batch that was begun; called once
Number = TypeVar("Number", bound=np.generic)


class Slot:
    """Arrays of one batch: the first that is asked for lies where the last batch's first lay."""

    def __init__(self, memory: Callable[[int], Memory] = lambda n: np.empty(n, np.uint8)) -> None:
        """`memory` makes so many bytes."""
        self._memory = memory
        self.held: list[Memory] = []
        self._used = 0

    def array(self, shape: tuple[int, ...], kind: type[Number]) -> npt.NDArray[Number]:
        """An array that is valid until the batch's rows are collected; it holds anything."""
        size, number = math.prod(shape) * np.dtype(kind).itemsize, self._used
        self._used += 1
        if number == len(self.held):
            self.held.append(self._memory(0))
        if self.held[number].size < size:
            self.held[number] = self._memory(1 << (size - 1).bit_length())
        return self.held[number][:size].view(kind).reshape(shape)

    def copy(self, items: npt.NDArray[Number]) -> npt.NDArray[Number]:
        """`items` in an array of this slot's."""
        made = self.array(items.shape, items.dtype.type)
        made[...] = items
        return made

    def clear(self) -> None:
        """Its arrays are the next batch's."""
        self._used = 0


AnySlot = TypeVar("AnySlot", bound=Slot)


class Slots(Generic[AnySlot]):
    """As many as there are batches under way: one is made where none is free."""

    def __init__(self, make: Callable[[], AnySlot]) -> None:
        self._make = make
        self._free: list[AnySlot] = []

    def submit(self, begin: Callable[[AnySlot], Collect]) -> Collect:
        """Begin in a free slot, which is free again once what is returned has been called."""
        try:
            slot = self._free.pop()
        except IndexError:
            slot = self._make()
        try:
            end = begin(slot)
        except BaseException:
            self.free(slot)
            raise

        def collect() -> Rows:
            try:
                return end()
            finally:
                self.free(slot)

        return collect

    def free(self, slot: AnySlot) -> None:
        """Nothing of that batch is needed any more."""
        slot.clear()
        self._free.append(slot)


def squares(pixels: Sequence[Pixels], slot: Slot) -> Levels:
    """Pictures of one resolution: (n, height, width, 3)."""
    levels = slot.array((len(pixels), *pixels[0].patches.shape), np.uint8)
    return np.stack([picture.patches for picture in pixels], out=levels)


def sequences(pixels: Sequence[Pixels], length: int, slot: Slot) -> Levels:
    """Pictures of at most `length` patches, zeros behind them: (n, length, patch · patch · 3)."""
    levels = slot.array((len(pixels), length, pixels[0].patches.shape[1]), np.uint8)
    for row, picture in zip(levels, pixels, strict=True):
        row[: picture.cost], row[picture.cost :] = picture.patches, 0
    return levels
