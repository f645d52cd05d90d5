"""Rows 1 and 2: as much as the server can do, and twice that.

Capacity is measured first, by clients that wait for their answers, with every vector computed. The
pictures are large, so the server's decoding is the bottleneck and not the client that asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.faults.row import Finding
from bench.faults.stage import SMALL_QUEUE, Stage
from bench.faults.tally import Tally
from bench.faults.traffic import Traffic

CLIENTS = 8


@dataclass(frozen=True, slots=True)
class Minute:
    """What the server can do, alone and at most, and a minute of 0.8 of that right after."""

    quiet: Tally
    rate: float
    load: Tally

    @property
    def ratio(self) -> float:
        """p99 under load ÷ p99 of a client that is alone."""
        return self.load.quantile(0.99) / self.quiet.quantile(0.99)

    @classmethod
    async def of(cls, stage: Stage, traffic: Traffic) -> Minute:
        """One minute, measured."""
        quiet = await traffic.closed(1, stage.of(10.0, 1.0))
        rate = await capacity(stage, traffic)
        return cls(quiet, rate, await traffic.paced(0.8 * rate, stage.of(60.0, 4.0)))


async def near_capacity(stage: Stage, finding: Finding) -> None:
    """At 0.8 of capacity nothing is refused, and the slowest wait little longer than alone.

    Ten minutes, each judged by what the machine did just before it: a shared one loses a fifth of
    its speed and finds it again within minutes, and against a capacity of long ago the load would
    be no load or too much. The ratio is the median of the minutes; the worst is noted.
    """
    server = await stage.common()
    async with await stage.traffic(server, stage.heavy, fresh=1.0) as traffic:
        minutes = [await Minute.of(stage, traffic) for _ in range(stage.of(10, 1))]
    for minute in minutes:
        finding.take(minute.load)
    finding.must(finding.tally.refused == 0, "0 refused")
    ratios = [minute.ratio for minute in minutes]
    rates = [minute.rate for minute in minutes]
    finding.note(f"capacity {min(rates):.0f} to {max(rates):.0f}/s, p99 {_span(ratios)} × unloaded")
    finding.timely(median(ratios) <= 3, "p99 at most 3 × unloaded")


def _span(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"


async def above_capacity(stage: Stage, finding: Finding) -> None:
    """At twice the capacity the server does what it can and tells the rest to come back."""
    server = await stage.server(*SMALL_QUEUE)
    seconds = stage.of(60.0, 6.0)
    async with await stage.traffic(server, stage.heavy, fresh=1.0) as traffic:
        rate = await capacity(stage, traffic)
        async with traffic.steady(2 * rate):
            await asyncio.sleep(seconds)
            in_time = traffic.tally.answered  # those that come after the load are not its rate
        tally = traffic.turn()
    finding.take(tally)
    finding.must(tally.refused > 0, "some are told to come back")
    goodput = in_time / seconds / rate
    finding.note(f"capacity {rate:.1f}/s, goodput {goodput:.0%}, p99 {tally.p99_ms:.0f} ms")
    finding.timely(goodput >= 0.9, "goodput at least 90 % of capacity")


async def capacity(stage: Stage, traffic: Traffic) -> float:
    """Answers a second to clients that wait for them."""
    await traffic.closed(CLIENTS, stage.of(5.0, 0.5))
    seconds = stage.of(20.0, 2.0)
    return (await traffic.closed(CLIENTS, seconds)).answered / seconds
