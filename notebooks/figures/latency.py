"""Where the milliseconds of a request went, and what Little's law says of them.

The server tells what it waited and worked for (`Server-Timing`); what is left of the client's time
is HTTP, JSON, the network and the client itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from bench.load.summary import NOTHING, Summary
from notebooks.figures.table import Table

STAGES = ("cache", "queue", "decode", "infer")
REST = "HTTP and the rest"


def parts(summary: Summary) -> dict[str, float]:
    """Mean milliseconds of each stage; together they are the mean latency."""
    told = {stage: summary.server_ms.get(stage, 0.0) for stage in STAGES}
    whole = (summary.latency_ms or {}).get("mean", 0.0)
    return {**told, REST: max(0.0, whole - sum(told.values()))}


def in_flight(summary: Summary) -> float:
    """Little's law: requests in flight, from throughput and mean latency alone."""
    return summary.throughput * (summary.latency_ms or {}).get("mean", 0.0) / 1e3


def little(summaries: Sequence[Summary]) -> Table:
    """In flight as asked for, beside what throughput × latency says."""
    rows = [
        [s.level, f"{s.throughput:.1f}", _mean(s), f"{in_flight(s):.2f}", _share(s)]
        for s in summaries
    ]
    return Table(["in flight", "RPS", "mean ms", "RPS × mean", "of those asked for"], rows)


def flooded(fields: Mapping[str, Any]) -> dict[str, float]:
    """P99 in ms of single items without a flood and beside one, from `bench.faults.classes`."""
    rounds = fields["rounds"]
    found = {"no flood": median(one["quiet_p99_ms"] for one in rounds)}
    for flood, name in (("bulk", "flood in bulk"), ("interactive", "flood in the same class")):
        found[name] = median(one["mixed_p99_ms"] for one in rounds if one["flood"] == flood)
    return found


def level_table(systems: Mapping[str, Sequence[Summary]]) -> Table:
    """Concurrency against throughput, latency and errors, level by level, system by system."""
    columns = ["system", "concurrency", "RPS", "mean ms", "P95 ms", "P99 ms", "error rate %"]
    rows = [[name, *_cells(one)] for name, levels in systems.items() for one in levels]
    return Table(columns, rows)


def _cells(summary: Summary) -> list[str]:
    spread = summary.latency_ms or {}
    named = [f"{spread[n]:.1f}" if n in spread else NOTHING for n in ("mean", "p95", "p99")]
    return [summary.level, f"{summary.throughput:.1f}", *named, f"{summary.errors_pct:.2f}"]


def _mean(summary: Summary) -> str:
    return f"{summary.latency_ms['mean']:.1f}" if summary.latency_ms else NOTHING


def _share(summary: Summary) -> str:
    asked = summary.concurrency
    return f"{in_flight(summary) / asked:.0%}" if asked else NOTHING
