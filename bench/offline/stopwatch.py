"""How often something is done in a second, the device being idle before and after."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import pynvml
import torch

from bench.rig import command

SIDES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}
SECONDS = 0.25
NUMBERS = {
    "float32": torch.float32,
    "float16": torch.float16,
    "int8": torch.int8,
    "float8": torch.float8_e4m3fn,
}

Product = Callable[[], object]


def per_second(run: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Over as many runs as fill `seconds`, at least one, each waited for."""

    def whole() -> None:
        run()
        finish(device)

    finish(device)
    return command.per_second(whole, seconds)


def each(run: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Seconds of one run among as many as fill `seconds`, at least three, queued without waiting.

    So it is the device's time, or the host's where launching takes longer.
    """
    run()
    runs = max(3, int(seconds * per_second(run, device, 0.0)))
    start = time.perf_counter()
    for _ in range(runs):
        run()
    finish(device)
    return (time.perf_counter() - start) / runs


def finish(device: torch.device) -> None:
    """Wait for what was queued; a CPU queues nothing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class EnergyMeter:
    """Of one device; a device without such a counter has no reading."""

    def __init__(self, device: torch.device) -> None:
        self._handle: object = None
        if device.type == "cuda":
            with suppress(pynvml.NVMLError):
                pynvml.nvmlInit()
                # By its UUID, for CUDA_VISIBLE_DEVICES may number devices otherwise.
                uuid = torch.cuda.get_device_properties(device).uuid
                self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")

    def joules(self) -> float | None:
        """Since the driver was loaded."""
        with suppress(pynvml.NVMLError):  # cards before Volta count none
            if self._handle is not None:
                return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3
        return None


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
