"""Faults on demand, for the tests of faults. Does nothing unless `test_hooks` is switched on.

A text such as `siglit-test: exit` ends the worker in the middle of a batch, `hang` never returns,
`raise` fails the batch, `break` fails it as a card does that is lost, `slow` takes a second. The
same words in the bytes of an image do it in its decoder, and `spin` keeps a core busy there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

MARK = "siglit-test: "
HANG_SECONDS = 3600.0


class ProvokedFault(Exception):
    """What `raise` raises."""


def provoked(text: str | bytes) -> str:
    """The fault that a text or the bytes of an image ask for, or the empty string."""
    if isinstance(text, bytes):
        return provoked(text[:64].decode("latin-1"))
    return text.removeprefix(MARK).split(" ")[0] if text.startswith(MARK) else ""


def provoke(faults: Iterable[str]) -> None:
    """Commit the faults of a batch."""
    for fault in faults:
        if fault == "exit":
            os._exit(99)
        if fault == "hang":
            time.sleep(HANG_SECONDS)
        if fault == "spin":
            ends = time.monotonic() + HANG_SECONDS
            while time.monotonic() < ends:
                pass
        if fault == "slow":
            time.sleep(1.0)
        if fault == "break":
            raise ProvokedFault("CUDA error: an illegal memory access was encountered")
        if fault == "raise":
            raise ProvokedFault(fault)
