"""What the cache tells whoever measures it.

The tiers call a `Watcher` with counts, once for each resolve, look-up or flush and never once for
each vector, so watching costs the hot path one call. The cache does not know Prometheus: a service
passes its own watcher, and without one `SILENT` hears everything and says nothing.

Tiers are "l1", "redis" and "flight" (single-flight). Results are "hit", "miss", "join", "error"
(asked, no answer within the budget), "corrupt" (an answer that does not verify) and "bypass"
(not asked: the breaker is open, or the caller wants a fresh vector).
"""

from __future__ import annotations

from typing import Any, Protocol


class Watcher(Protocol):
    def looked_up(self, tier: str, result: str, n: int) -> None:
        """`n` keys were looked up in `tier` and ended as `result`."""

    def lookup_seconds(self, tier: str, seconds: float) -> None:
        """One round trip to `tier` took, or was given up after, `seconds`."""

    def bytes(self, tier: str, n: int) -> None:
        """`tier` now holds `n` bytes."""

    def evicted(self, n: int) -> None:
        """`n` vectors left the in-process tier to make room."""

    def breaker(self, state: str) -> None:
        """The breaker of the look-ups went to `state`: closed, half-open or open."""

    def problem(self, side: str, reason: str, there: bool) -> None:
        """Redis does not serve `side`, "read" or "write", for `reason`; or no longer."""

    def queue(self, depth: int) -> None:
        """`depth` vectors wait to be written to Redis."""

    def dropped(self, n: int) -> None:
        """`n` vectors will never be written: the queue was full, or Redis refused them."""

    def written(self, n: int) -> None:
        """`n` vectors were written to Redis."""


class Silent:
    def written(self, *_: Any, **__: Any) -> None: ...

    looked_up = lookup_seconds = bytes = evicted = breaker = problem = queue = dropped = written


SILENT: Watcher = Silent()
