"""The way of a batch to torch's device and back, without waiting but for its rows.

What is sent lies in a slot, pinned for a GPU; what comes back is copied into the slot behind the
forward pass. A GPU does both when it comes to it, so a slot is written again only after its rows
have been collected.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from litapi.model.engines import card
from litapi.model.engines.slots import Collect, Number, Rows, Slot, Slots

Forward = Callable[[], Tensor]  # what a device computes of a slot: (n, dim)
Wait = Callable[[], None]


class Stream:
    """The batches of one tower on one device."""

    def __init__(self, place: torch.device) -> None:
        self.place = place
        self.depth = 1 if place.type == "cpu" else 2
        self.slots = Slots(functools.partial(Slot, self._memory))

    def submit(self, shape: tuple[int, int], write: Callable[[Slot], Forward]) -> Collect:
        """Begin with a batch whose rows are of that shape; `write` writes it into its slot."""

        def begin(slot: Slot) -> Collect:
            forward, rows = write(slot), slot.array(shape, np.float32)
            wait = self.run(functools.partial(_into, rows, forward))

            def end() -> Rows:
                wait()
                return rows.copy()

            return end

        return self.slots.submit(begin)

    def send(self, array: npt.NDArray[Number]) -> Tensor:
        """An array of a slot's, on the device."""
        return card.send(torch.from_numpy(array), self.place)

    def run(self, work: Callable[[], None]) -> Wait:
        """Have the device do it after all it was given before; what is returned waits for that."""
        with torch.inference_mode():
            work()
        if self.place.type != "cuda":
            return lambda: None
        done: Any = torch.cuda.Event  # which torch has not typed
        event = done(blocking=True)  # the core is free for decoding meanwhile
        event.record()
        wait: Wait = event.synchronize
        return wait

    def _memory(self, size: int) -> npt.NDArray[np.uint8]:
        memory: npt.NDArray[np.uint8] = card.host_memory(self.place, (size,), torch.uint8).numpy()
        return memory


def _into(rows: Rows, forward: Forward) -> None:
    torch.from_numpy(rows).copy_(forward().float(), non_blocking=True)
