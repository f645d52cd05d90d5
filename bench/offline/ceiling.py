"""What the machine's own matrix product reaches: no tower of the same numbers can be faster.

A large square product of the numbers that the tower multiplies, with the same threads, the best of
several sizes. Whole numbers are multiplied by the kernel that is made for them: oneDNN's on a CPU
(torch's plain one there is a loop), cuBLAS's on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from bench.offline.stopwatch import per_second

SIDES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}
SECONDS = 0.25
NUMBERS = {
    "float32": torch.float32,
    "float16": torch.float16,
    "int8": torch.int8,
    "float8": torch.float8_e4m3fn,
}

Product = Callable[[], object]


def multiplied(precision: str) -> torch.dtype:
    """What a tower multiplies in a precision: those that are not here compute in bfloat16."""
    return NUMBERS.get(precision, torch.bfloat16)


class Ceiling:
    """The fastest square product of one kind of number on a device."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        """Tries all sizes, for a quarter of a second each.

        Raises RuntimeError where the device does not multiply such numbers.
        """
        self._dtype = dtype
        self._device = device
        self._side = max(SIDES[device.type], key=self._rate)

    def measure(self) -> float:
        """GFLOP/s, now. The squares are gone afterwards: they would be counted as the tower's."""
        return self._rate(self._side)

    def _rate(self, side: int) -> float:
        run = product(self._dtype, self._device, side)
        run()
        return 2 * side**3 * per_second(run, self._device, SECONDS) / 1e9


def product(dtype: torch.dtype, device: torch.device, side: int) -> Product:
    """A product of two random squares, ready to run."""
    if dtype == torch.int8:
        return _of_whole_numbers(device, side)
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    if dtype != torch.float8_e4m3fn:
        return lambda: torch.mm(left, right.T)  # weights lie transposed, as in a linear layer
    one = torch.ones((), device=device)
    return lambda: torch._scaled_mm(
        left, right.T, one, one, out_dtype=torch.bfloat16, use_fast_accum=True
    )


def _of_whole_numbers(device: torch.device, side: int) -> Product:
    weights = torch.randint(-64, 64, (side, side), dtype=torch.int8, device=device)
    if device.type == "cuda":
        states = torch.randint(-64, 64, (side, side), dtype=torch.int8, device=device)
        return lambda: torch._int_mm(states, weights.T)
    levels = torch.randint(0, 128, (side, side), dtype=torch.uint8)
    packed = torch.ops.onednn.qlinear_prepack(weights, None)
    scales, zeros = torch.ones(side), torch.zeros(side, dtype=torch.int32)
    return lambda: torch.ops.onednn.qlinear_pointwise(
        levels, 1.0, 0, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
