"""Ctrl-C as a wish: the first one asks the run to end, the second one insists."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any, Self

WISHES = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """While entered, `asked` says whether the run is to end."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {wish: signal.signal(wish, self._take) for wish in WISHES}
        return self

    def __exit__(self, *_: object) -> None:
        for wish, handler in self._before.items():
            signal.signal(wish, handler)

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
