"""Prometheus, across processes.

`lay` chooses an empty folder before prometheus_client is first imported; every process then writes
its own memory-mapped file there, and `/metrics` adds them up. Each call on the hot path touches a
child that was looked up once.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache as memoise
from pathlib import Path

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def lay() -> Path:
    """Make the folder that the processes of this server share; call before anything else here."""
    folder = Path(tempfile.mkdtemp(prefix="siglit-metrics-"))
    os.environ[_VARIABLE] = str(folder)
    return folder


class Metrics:
    """The counters of one process. Also the cache's `Watcher`."""

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        fast = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
        self._requests = Counter(
            "siglit_requests", "Answers by route and status", ["route", "status"]
        )
        self._seconds = Histogram(
            "siglit_request_seconds", "Request to answer", ["route"], buckets=fast
        )
        self._items = Counter(
            "siglit_items", "Items by kind and what became of them", ["kind", "result"]
        )
        self._stages = Histogram(
            "siglit_stage_seconds", "Time of a job in each stage", ["kind", "stage"], buckets=fast
        )
        self._in_flight = Gauge(
            "siglit_in_flight", "Requests being answered", multiprocess_mode="livesum"
        )
        self._lookups = Counter("cache_requests", "Look-ups", ["tier", "result"])
        self._lookup_seconds = Histogram(
            "cache_lookup_seconds", "Round trips", ["tier"], buckets=fast
        )
        self._bytes = Gauge("cache_bytes", "Bytes held", ["tier"], multiprocess_mode="livesum")
        self._evicted = Counter("cache_l1_evictions", "Vectors that left the process's memory")
        self._breaker = Gauge(
            "cache_breaker_state", "0 closed, 1 half-open, 2 open", multiprocess_mode="livemax"
        )
        self._queue = Gauge(
            "cache_write_queue", "Vectors to be written", multiprocess_mode="livesum"
        )
        self._dropped = Counter("cache_write_dropped", "Vectors that were never written")
        self._written = Counter("cache_written", "Vectors written to Redis")
        self._tier = Gauge(
            "cache_tier_info", "Tiers in use", ["tiers"], multiprocess_mode="livemax"
        )
        self._request = memoise(lambda route, status: self._requests.labels(route, status))
        self._second = memoise(lambda route: self._seconds.labels(route))
        self._item = memoise(lambda kind, result: self._items.labels(kind, result))
        self._stage = memoise(lambda kind, stage: self._stages.labels(kind, stage))
        self._lookup = memoise(lambda tier, result: self._lookups.labels(tier, result))

    def answered(self, route: str, status: int, seconds: float) -> None:
        """One answer went out."""
        self._request(route, str(status)).inc()
        self._second(route).observe(seconds)

    def items(self, kind: str, result: str, n: int) -> None:
        """`n` items of a kind ended as hit, computed or refused."""
        self._item(kind, result).inc(n)

    def stages(self, kind: str, queue: float, decode: float, infer: float) -> None:
        """What a worker reported about one job, in seconds."""
        self._stage(kind, "queue").observe(queue)
        self._stage(kind, "decode").observe(decode)
        self._stage(kind, "infer").observe(infer)

    def in_flight(self, n: int) -> None:
        """Requests this process is answering now."""
        self._in_flight.set(n)

    def tiers(self, names: str) -> None:
        """Which cache tiers this server uses."""
        self._tier.labels(names).set(1)

    # -- the cache's Watcher -------------------------------------------------------------------

    def looked_up(self, tier: str, result: str, n: int) -> None:
        self._lookup(tier, result).inc(n)

    def lookup_seconds(self, tier: str, seconds: float) -> None:
        self._lookup_seconds.labels(tier).observe(seconds)

    def bytes(self, tier: str, n: int) -> None:
        self._bytes.labels(tier).set(n)

    def evicted(self, n: int) -> None:
        self._evicted.inc(n)

    def breaker(self, state: str) -> None:
        self._breaker.set({"closed": 0, "half-open": 1, "open": 2}.get(state, 2))

    def queue(self, depth: int) -> None:
        self._queue.set(depth)

    def dropped(self, n: int) -> None:
        self._dropped.inc(n)

    def written(self, n: int) -> None:
        self._written.inc(n)


def exposition() -> bytes:
    """The text of `/metrics`, of all processes together."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def forget(pid: int) -> None:
    """Take the live gauges of an ended process out of the sums."""
    from prometheus_client.multiprocess import mark_process_dead

    if os.environ.get(_VARIABLE):
        mark_process_dead(pid)  # type: ignore[no-untyped-call]
