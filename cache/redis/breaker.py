"""When Redis does not answer, stop asking: the budget is paid three times, not by every request.

    CLOSED --3 failures in a row--> OPEN --wait--> HALF_OPEN --success--> CLOSED
                                     ^                 |
                                     +-----failure-----+   the wait doubles, 0.5 s up to 10 s

Half-open lets one trial through at a time. A trial that never reports (its task was cancelled)
does not hold the door: after another wait the next one may go. `invite` ends the wait at once, for
a caller that learnt by other means that the service is back. It shortens no later wait, so a wrong
invitation costs one trial.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum

FAILURES = 3
FIRST, LONGEST = 0.5, 10.0  # seconds of waiting


class Circuit(StrEnum):
    CLOSED = "closed"
    HALF_OPEN = "half-open"
    OPEN = "open"


class Breaker:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.state = Circuit.CLOSED
        self._run = 0
        self._wait = FIRST
        self._until = 0.0

    def allow(self) -> bool:
        """Whether to ask now. While not closed, a True is the one trial: report how it went."""
        if self.state is Circuit.CLOSED:
            return True
        now = self._clock()
        if now < self._until:
            return False
        self._until = now + self._wait
        self.state = Circuit.HALF_OPEN
        return True

    def succeeded(self) -> None:
        self.state = Circuit.CLOSED
        self._run = 0
        self._wait = FIRST

    def failed(self) -> None:
        self._run += 1
        if self.state is Circuit.HALF_OPEN:
            self._open(min(2 * self._wait, LONGEST))
        elif self.state is Circuit.CLOSED and self._run >= FAILURES:
            self._open(FIRST)

    def _open(self, wait: float) -> None:
        self.state = Circuit.OPEN
        self._wait = wait
        self._until = self._clock() + wait

    def invite(self) -> None:
        if self.state is Circuit.OPEN:
            self._until = self._clock()
