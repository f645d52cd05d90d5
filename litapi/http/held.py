"""The memory that clients take in one HTTP process: request bodies, and answers not yet read.

Both are bounded in bytes. Beyond a bound the slowest client is ended first, as it holds its memory
for the longest time. Small bodies and answers are not counted, so that large ones never lock them
out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from litapi.metrics import held

SMALL = 64 << 10  # bytes up to which a body or an answer is not counted
SLOW = 1 << 20  # bytes a second below which a body may be refused for memory
GRACE = 1.0  # seconds from its first write before a client can be called slow
TRIM_FROM = 16 << 20  # bytes freed by clients after which memory goes back to the system


class Sender(Protocol):
    def evict(self) -> None:
        """Refuse its body to free the memory."""


class Bodies:
    """The request bodies of one process, from their first byte until their answer. `key` is the
    identity of the scope of a request. For one event loop: there is no lock."""

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.total = 0
        self._sizes: dict[int, int] = {}
        self._slow: dict[Sender, float] = {}

    def add(self, key: int, more: int) -> bool:
        """This request holds `more` bytes than before. False: refuse it."""
        size = self._sizes[key] = self._sizes.get(key, 0) + more
        self.total += more
        while self.total > self.bound and self._slow:
            slowest = min(self._slow, key=self._slow.__getitem__)
            del self._slow[slowest]
            slowest.evict()
        return self.total <= self.bound or size <= SMALL or key not in self._sizes

    def drop(self, key: int) -> None:
        self.total -= self._sizes.pop(key, 0)

    def pace(self, sender: Sender, key: int, rate: float) -> None:
        """The recent rate of a body that is being received, in bytes a second."""
        if rate < SLOW and self._sizes.get(key, 0) > SMALL:
            self._slow[sender] = rate
        else:
            self._slow.pop(sender, None)

    def forget(self, sender: Sender) -> None:
        self._slow.pop(sender, None)

    def show(self) -> None:
        held("bodies", self.total, self.bound)


class Receiver(Protocol):
    def unsent(self) -> int:
        """Bytes that its client has not read."""

    def cut(self) -> None:
        """End it at once."""


class Answers:
    """The large answers of one process that are written and not yet read by their clients."""

    def __init__(self, bound: int, clock: Callable[[], float]) -> None:
        self.bound = bound
        self.total = 0
        self._clock = clock
        self._written: dict[Receiver, tuple[float, int]] = {}  # since when, and how much

    def wrote(self, receiver: Receiver, size: int) -> None:
        """Another `size` bytes were written there; beyond the bound the slowest are cut."""
        since, written = self._written.get(receiver) or (self._clock(), 0)
        self._written[receiver] = (since, written + size)
        self.total += size
        if self.total > self.bound:
            self._relieve()

    def forget(self, receiver: Receiver) -> None:
        self._written.pop(receiver, None)

    def show(self) -> None:
        self._count()
        held("answers", self.total, self.bound)

    def _count(self) -> dict[Receiver, int]:
        unsent = {receiver: receiver.unsent() for receiver in self._written}
        for receiver, size in unsent.items():
            if size == 0:
                del self._written[receiver]
        self.total = sum(unsent.values())
        return unsent

    def _relieve(self) -> None:
        now, unsent = self._clock(), self._count()

        def rate(receiver: Receiver) -> float:
            since, written = self._written[receiver]
            return (written - unsent[receiver]) / max(now - since, 1e-3)

        for receiver in sorted(self._written, key=rate):
            young = now - self._written[receiver][0] < GRACE
            if self.total > self.bound * (2 if young else 1) and len(self._written) > 1:
                self.total -= unsent[receiver]
                del self._written[receiver]
                receiver.cut()
