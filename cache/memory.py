"""The tiers in the process: vectors, and content that is known to be bad. For one event loop: there
is no lock.

Counting entries would let a change of model multiply the memory; counting only vectors would hide
a tenth of it. So an entry costs its key, its vector and `EXTRA`, what CPython spends on the entry
and its place in the map. Values are immutable and named by their content, so nothing here goes
stale and no entry carries a clock.

An error is kept only for faults that lie in the bytes themselves (not an image, too many pixels):
the same bytes fail the same way. Never for overload, timeouts or the server's own faults. Redis
never learns that an input was bad.
"""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Callable

from cache.codec import Entry

# the Entry object, its token count, and the map's hash slot and list node (measured, see the test)
EXTRA = 200
SECONDS = 60.0  # that an error is kept


def cost(key: bytes, entry: Entry) -> int:
    return sys.getsizeof(key) + sys.getsizeof(entry.vector) + EXTRA


class MemoryTier:
    """Least recently used, bounded in bytes. `limit` 0 keeps nothing: every look-up misses."""

    def __init__(self, limit: int) -> None:
        if limit < 0:
            raise ValueError(f"a memory tier cannot hold {limit} bytes")
        self.limit = limit
        self.bytes = 0
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> Entry | None:
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: bytes, entry: Entry) -> int:
        """Keep the entry and say how many others left for it."""
        before = self._entries.pop(key, None)
        if before is not None:
            self.bytes -= cost(key, before)
        size = cost(key, entry)
        if size > self.limit:
            return 0
        self._entries[key] = entry
        self.bytes += size
        held = len(self._entries)
        while self.bytes > self.limit:
            self.bytes -= cost(*self._entries.popitem(last=False))
        return held - len(self._entries)


class NegativeTier:
    """So that what is bad is not decoded again and again. By digest, the youngest `limit`."""

    def __init__(self, limit: int = 1024, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._errors: OrderedDict[bytes, tuple[float, type[Exception]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._errors)

    def get(self, digest: bytes) -> Exception | None:
        """The error that this content earned, if it did within the last minute."""
        ends, error = self._errors.get(digest, (0.0, Exception))
        if ends > self._clock():
            return error()
        self._errors.pop(digest, None)
        return None

    def put(self, digest: bytes, error: type[Exception]) -> None:
        """Remember it; every error lives equally long, so the first in the order is the oldest."""
        self._errors.pop(digest, None)
        self._errors[digest] = (self._clock() + SECONDS, error)
        while len(self._errors) > self._limit:
            self._errors.popitem(last=False)
