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


def finish(device: torch.device) -> None:
    """Wait for what was queued; a CPU queues nothing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
