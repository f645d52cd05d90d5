"""What clients make one HTTP process hold: bodies on their way and in work, answers not yet taken.

Both are bounded in bytes. Beyond a bound the client that is slowest ends first: it holds memory for
longer than anybody else, and gives the least for it. Small ones are let through in any case, so
that large ones never keep them out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from litapi.metrics import held

SMALL = 64 << 10  # bytes of a body or an answer that is not counted: each connection has buffers
SLOW = 1 << 20  # bytes a second; a body that comes faster is nobody's burden for long
GRACE = 1.0  # seconds in which an answer may be taken before its client can be called slow
TRIM_FROM = 16 << 20  # bytes freed by clients after which memory goes back to the system


class Sender(Protocol):
    """A connection whose body is on its way."""

    def evict(self) -> None:
        """End it for the bytes it makes this process hold."""


class Bodies:
    """The request bodies of one process, from their first byte until their answer.

    `key` is the identity of the scope of a request. For one event loop: there is no lock.
    """

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.total = 0
        self._sizes: dict[int, int] = {}
        self._slow: dict[Sender, float] = {}

    def put(self, key: int, size: int) -> bool:
        """This request holds `size` bytes now. False: it is to be refused for that."""
        self.total += size - self._sizes.get(key, 0)
        self._sizes[key] = size
        while self.total > self.bound and self._slow:
            slowest = min(self._slow, key=self._slow.__getitem__)
            del self._slow[slowest]
            slowest.evict()
        return self.total <= self.bound or size <= SMALL or key not in self._sizes

    def add(self, key: int, more: int) -> bool:
        """The same for `more` bytes than it held before."""
        return self.put(key, self._sizes.get(key, 0) + more)

    def drop(self, key: int) -> None:
        """The request is answered, or its client has gone."""
        self.total -= self._sizes.pop(key, 0)

    def pace(self, sender: Sender, key: int, rate: float) -> None:
        """How many bytes a second a body that is awaited has brought of late."""
        if rate < SLOW and self._sizes.get(key, 0) > SMALL:
            self._slow[sender] = rate
        else:
            self._slow.pop(sender, None)

    def forget(self, sender: Sender) -> None:
        """Nothing is awaited from there any more."""
        self._slow.pop(sender, None)

    def show(self) -> None:
        """Tell the metrics."""
        held("bodies", self.total, self.bound)


class Reader(Protocol):
    """A connection to which answers are written."""

    def unsent(self) -> int:
        """Bytes that its client has not taken."""

    def cut(self) -> None:
        """End it at once."""


class Answers:
    """The large answers of one process that are written and not yet taken."""

    def __init__(self, bound: int, clock: Callable[[], float]) -> None:
        self.bound = bound
        self.total = 0
        self._clock = clock
        self._written: dict[Reader, tuple[float, int]] = {}  # since when, and how much

    def wrote(self, reader: Reader, size: int) -> None:
        """Another `size` bytes were written there; beyond the bound the slowest readers are cut."""
        since, written = self._written.get(reader) or (self._clock(), 0)
        self._written[reader] = (since, written + size)
        self.total += size
        if self.total > self.bound:
            self._relieve()

    def forget(self, reader: Reader) -> None:
        """That connection is no more."""
        self._written.pop(reader, None)

    def show(self) -> None:
        """Tell the metrics."""
        self._count()
        held("answers", self.total, self.bound)

    def _count(self) -> dict[Reader, int]:
        unsent = {reader: reader.unsent() for reader in self._written}
        for reader, size in unsent.items():
            if size == 0:
                del self._written[reader]
        self.total = sum(unsent.values())
        return unsent

    def _relieve(self) -> None:
        now, unsent = self._clock(), self._count()

        def rate(reader: Reader) -> float:
            since, written = self._written[reader]
            return (written - unsent[reader]) / max(now - since, 1e-3)

        for reader in sorted(self._written, key=rate):
            young = now - self._written[reader][0] < GRACE
            if self.total > self.bound * (2 if young else 1) and len(self._written) > 1:
                self.total -= unsent[reader]
                del self._written[reader]
                reader.cut()
