"""How often something is done in a second, the device being idle before and after."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def per_second(run: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Over as many runs as fill `seconds`, at least one."""
    finish(device)
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or not done:
        run()
        finish(device)
        done += 1
    return done / elapsed


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
