"""Rows 1 and 2: as much as the server can do, and twice that.

Capacity is measured first, by clients that wait for their answers, with every vector computed. The
pictures are large, so the server's decoding is the bottleneck and not the client that asks.
"""

from __future__ import annotations

from bench.faults.row import Finding
from bench.faults.stage import SMALL_QUEUE, Stage
from bench.faults.traffic import Traffic

CLIENTS = 8


async def near_capacity(stage: Stage, finding: Finding) -> None:
    """At 0.8 of capacity nothing is refused, and the slowest wait little longer than alone."""
    server = await stage.common()
    async with await stage.traffic(server, stage.heavy, fresh=1.0) as traffic:
        quiet = await traffic.closed(1, stage.of(20.0, 1.0))
        rate = await capacity(stage, traffic)
        tally = await traffic.paced(0.8 * rate, stage.of(600.0, 4.0))
    finding.take(tally)
    finding.must(tally.refused == 0, "0 refused")
    ratio = tally.quantile(0.99) / quiet.quantile(0.99)
    finding.note(f"capacity {rate:.1f}/s, p99 {tally.p99_ms:.0f} ms, {ratio:.1f} × unloaded")
    finding.timely(ratio <= 3, "p99 at most 3 × unloaded")


async def above_capacity(stage: Stage, finding: Finding) -> None:
    """At twice the capacity the server does what it can and tells the rest to come back."""
    server = await stage.server(*SMALL_QUEUE)
    seconds = stage.of(60.0, 6.0)
    async with await stage.traffic(server, stage.heavy, fresh=1.0) as traffic:
        rate = await capacity(stage, traffic)
        tally = await traffic.paced(2 * rate, seconds)
    finding.take(tally)
    finding.must(tally.refused > 0, "some are told to come back")
    goodput = tally.answered / seconds / rate
    finding.note(f"capacity {rate:.1f}/s, goodput {goodput:.0%}, p99 {tally.p99_ms:.0f} ms")
    finding.timely(goodput >= 0.9, "goodput at least 90 % of capacity")


async def capacity(stage: Stage, traffic: Traffic) -> float:
    """Answers a second to clients that wait for them."""
    await traffic.closed(CLIENTS, stage.of(5.0, 0.5))
    seconds = stage.of(20.0, 2.0)
    return (await traffic.closed(CLIENTS, seconds)).answered / seconds
