"""What became of the questions of one run. Nothing is left out: sent is the sum of the rest.

    sent = answered + refused + lost      (wrong ones are among the answered)

`refused` is a 429 that says when to come back. `lost` is everything that left the client without
an answer it could use: a 5xx, a broken connection, silence, a 429 without `Retry-After`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from bench.load.connection import header
from bench.load.recording import states, timings
from bench.load.summary import percentile

COUNTS = ("sent", "answered", "refused", "lost", "wrong", "retried", "compared")


@dataclass(slots=True)
class Tally:
    """Counts of one run, the seconds of its answers, and why something went amiss."""

    sent: int = 0
    answered: int = 0
    refused: int = 0
    lost: int = 0
    wrong: int = 0
    retried: int = 0  # a second try after a broken connection, where the run allows one
    compared: int = 0  # vectors held against the right ones
    seconds: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)  # for the cache alone, as the server tells
    states: Counter[str] = field(default_factory=Counter)  # of `X-Cache`
    reasons: Counter[str] = field(default_factory=Counter)

    def answer(self, seconds: float, compared: int, head: bytes) -> None:
        """An answer came and could be read."""
        self.answered += 1
        self.compared += compared
        self.seconds.append(seconds)
        self.states.update(states(header(head, b"x-cache")))
        waited = timings(header(head, b"server-timing")).get("cache")
        if waited is not None:
            self.waits.append(waited / 1e3)

    def miss(self, reason: str) -> None:
        """An answer came and is not the right one."""
        self.wrong += 1
        self.reasons[reason] += 1

    def lose(self, reason: str) -> None:
        """No answer that the client could use."""
        self.lost += 1
        self.reasons[reason] += 1

    def add(self, other: Tally) -> None:
        """Take in the counts of another run."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.seconds += other.seconds
        self.waits += other.waits
        self.states += other.states
        self.reasons += other.reasons

    def quantile(self, share: float) -> float:
        """Seconds within which this share of the answers came; 0 where there were none."""
        return percentile(sorted(self.seconds), 100 * share) if self.seconds else 0.0

    @property
    def p99_ms(self) -> float:
        """In milliseconds, for notes."""
        return 1e3 * self.quantile(0.99)

    @property
    def cache_p99_ms(self) -> float:
        """The same of the part that was spent waiting for the cache."""
        return 1e3 * percentile(sorted(self.waits), 99) if self.waits else 0.0
