"""A GPU as torch sees it: what is set before anything is allocated, and what is sent there.

What is sent goes through pinned memory and is not waited for; torch keeps that memory until it is
copied. Whatever asks the card for a value (`.item()`, `.all()` in an `if`, a boolean index) waits
for all the work that it was given, so masks and orders are made from numbers the host has.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def settle(place: torch.device) -> None:
    """Make a GPU the calling thread's, and leave out what is inexact or slow there."""
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
    """On `place`, once the work before it is done. The caller writes to `host` no more."""
    return host.to(place, non_blocking=True)


def send_copy(values: Tensor, place: torch.device) -> Tensor:
    """The same of values that lie anywhere on the host."""
    host = host_memory(place, values.shape, values.dtype)
    host.copy_(values)
    return send(host, place)
