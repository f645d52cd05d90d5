from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(
    true: Callable[[], bool] | Callable[[], Awaitable[bool]], seconds: float = 10.0
) -> float:
    """Wait for something to become true, and say how long it took; a test fails if it never does.

    `seconds` bounds a broken build, not a slow machine.
    """
    began = time.monotonic()
    while True:
        now = true()
        if now if isinstance(now, bool) else await now:
            return time.monotonic() - began
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"not true within {seconds} s")
        await asyncio.sleep(0.01)


def awaited(happens: Callable[[], T], seconds: float = 60.0) -> T:
    """What it gives once that is something; a slow machine may take its time."""
    ends = time.monotonic() + seconds
    while not (found := happens()):
        if time.monotonic() > ends:
            raise TimeoutError(f"nothing within {seconds} s")
        time.sleep(0.02)
    return found
