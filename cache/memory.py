"""The tier in the process: least recently used, bounded in bytes.

Counting entries would let a change of model multiply the memory; counting only vectors would hide
a tenth of it. So an entry costs its key, its vector and `EXTRA`, what CPython spends on the entry
and its place in the map. Values are immutable and named by their content, so nothing here goes
stale and no entry carries a clock. For one event loop: there is no lock.
"""

from __future__ import annotations

import sys
from collections import OrderedDict

from cache.codec import Entry

# the Entry object, its token count, and the map's hash slot and list node (measured, see the test)
EXTRA = 200


def cost(key: bytes, entry: Entry) -> int:
    return sys.getsizeof(key) + sys.getsizeof(entry.vector) + EXTRA


class MemoryTier:
    """`limit` 0 keeps nothing: every look-up misses."""

    def __init__(self, limit: int) -> None:
        if limit < 0:
            raise ValueError(f"a memory tier cannot hold {limit} bytes")
        self.limit = limit
        self.bytes = 0
        self.evictions = 0
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: bytes) -> bool:
        return key in self._entries

    def get(self, key: bytes) -> Entry | None:
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: bytes, entry: Entry) -> int:
        """Keep the entry and say how many others left for it."""
        self.discard(key)
        size = cost(key, entry)
        if size > self.limit:
            return 0
        self._entries[key] = entry
        self.bytes += size
        return self._make_room()

    def _make_room(self) -> int:
        before = len(self._entries)
        while self.bytes > self.limit:
            key, entry = self._entries.popitem(last=False)
            self.bytes -= cost(key, entry)
        gone = before - len(self._entries)
        self.evictions += gone
        return gone

    def discard(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= cost(key, entry)
