"""The way of a batch to torch's device and back, without waiting but for its rows.

What is sent lies in a slot, pinned for a GPU; what comes back is copied into the slot behind the
forward pass. A GPU does both when it comes to it, so a slot is written again only after its rows
have been collected. Whatever asks a GPU for a value (`.item()`, `.all()` in an `if`, a boolean
index) waits for all the work that it was given, so masks and orders are made from numbers the host
has.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

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
        return send(torch.from_numpy(array), self.place)

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
        memory: npt.NDArray[np.uint8] = host_memory(self.place, (size,), torch.uint8).numpy()
        return memory


def _into(rows: Rows, forward: Forward) -> None:
    torch.from_numpy(rows).copy_(forward().float(), non_blocking=True)


def settle(place: torch.device) -> None:
    """Make a GPU the calling thread's, before anything is allocated, and leave out what is inexact
    or slow there."""
    if place.type != "cuda":
        return
    torch.cuda.set_device(place)
    torch.backends.cudnn.allow_tf32 = False  # else float32 convolutions keep 10 bits
    # cuDNN's attention plans for each new shape, and that takes longer than a batch. Without it a
    # mask means the memory-efficient kernel, and no mask FlashAttention.
    torch.backends.cuda.enable_cudnn_sdp(False)


def relieve(place: torch.device) -> None:
    """Give back what the allocator keeps of a GPU's memory and nobody holds."""
    if place.type == "cuda":
        torch.cuda.empty_cache()


def host_memory(place: torch.device, shape: Sequence[int], kind: torch.dtype) -> Tensor:
    """Zeros on the host, to be filled and sent to `place`."""
    return torch.zeros(tuple(shape), dtype=kind, pin_memory=place.type == "cuda")


def send(host: Tensor, place: torch.device) -> Tensor:
    """On `place`, once the work before it is done. The caller writes to `host` no more; torch keeps
    pinned memory until it is copied."""
    return host.to(place, non_blocking=True)


def send_copy(values: Tensor, place: torch.device) -> Tensor:
    """The same of values that lie anywhere on the host."""
    host = host_memory(place, values.shape, values.dtype)
    host.copy_(values)
    return send(host, place)
