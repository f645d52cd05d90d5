"""Rows 1, 2 and 15: as much as the server can do, twice that, and minutes of ordinary work.

Capacity is measured first, by clients that wait for their answers, with every vector computed. The
pictures are large, so the server's decoding is the bottleneck and not the client that asks.
"""

from __future__ import annotations

import asyncio
import time
from statistics import median

import numpy as np

from bench.faults.row import Finding
from bench.faults.stage import SMALL_QUEUE, Stage
from bench.faults.traffic import Traffic
from bench.faults.vitals import Vitals

CLIENTS = 8
TEN_MINUTES = 600.0
SPARE_FILES = 16


async def near_capacity(stage: Stage, finding: Finding) -> None:
    """At 0.8 of capacity nothing is refused, and the slowest wait little longer than alone.

    Ten minutes in stints of ten seconds, each judged by what the machine did just before and after
    it, as a shared core is half as fast for seconds at a time. The ratio is the stints' median.
    """
    server = await stage.common()
    rates, ratios = list[float](), list[float]()  # p99 under load ÷ p99 of a client that is alone
    async with await stage.traffic(server, stage.heavy, fresh=1.0) as traffic:
        for _ in range(stage.of(60, 1)):
            rates.append(await capacity(stage, traffic, stage.of(5.0, 2.0)))
            load = await traffic.paced(0.8 * rates[-1], stage.of(10.0, 4.0))
            alone = await traffic.closed(1, stage.of(4.0, 1.0))
            ratios.append(load.quantile(0.99) / alone.quantile(0.99))
            finding.take(load)
    finding.must(finding.tally.refused == 0, "0 refused")
    span = f"{median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
    finding.note(f"capacity {min(rates):.0f} to {max(rates):.0f}/s, p99 {span} × unloaded")
    finding.timely(median(ratios) <= 3, "p99 at most 3 × unloaded")


async def above_capacity(stage: Stage, finding: Finding) -> None:
    """At twice the capacity the server does what it can and tells the rest to come back."""
    server = await stage.server(*SMALL_QUEUE)
    seconds = stage.of(60.0, 6.0)
    async with await stage.traffic(server, stage.heavy, fresh=1.0) as traffic:
        rate = await capacity(stage, traffic, stage.of(20.0, 2.0))
        async with traffic.steady(2 * rate):
            await asyncio.sleep(seconds)
            in_time = traffic.tally.answered  # those that come after the load are not its rate
        tally = traffic.turn()
    finding.take(tally)
    finding.must(tally.refused > 0, "some are told to come back")
    goodput = in_time / seconds / rate
    finding.note(f"capacity {rate:.1f}/s, goodput {goodput:.0%}, p99 {tally.p99_ms:.0f} ms")
    finding.timely(goodput >= 0.9, "goodput at least 90 % of capacity")


async def capacity(stage: Stage, traffic: Traffic, seconds: float) -> float:
    """Answers a second to clients that wait for them."""
    await traffic.closed(CLIENTS, stage.of(1.0, 0.5))
    return (await traffic.closed(CLIENTS, seconds)).answered / seconds


async def soak(stage: Stage, finding: Finding) -> None:
    """Mixed load, half of it computed; memory and open files read once a second."""
    server = await stage.common()
    seconds = stage.of(300.0, 15.0)
    read: list[tuple[float, Vitals]] = []
    async with (
        await stage.traffic(server, fresh=0.5) as traffic,
        finding.under(traffic, CLIENTS // 2),
    ):
        await asyncio.sleep(seconds / 3)  # pools, caches and allocators fill
        began = time.monotonic()
        family = list(server.family())
        while time.monotonic() < began + seconds * 2 / 3:
            read.append((time.monotonic() - began, Vitals.of(family)))
            await asyncio.sleep(1.0)
    finding.must(finding.tally.refused == 0, "0 refused")
    files = read[-1][1].files - read[0][1].files
    sizes = [vitals.resident_mb for _, vitals in read]
    line = np.polyfit([when for when, _ in read], sizes, 1)
    slope = line[0] * TEN_MINUTES / sizes[0]  # as a share of the memory at the start
    finding.note(f"resident memory {slope:+.2%} in 10 min, open files {files:+d}, {seconds:.0f} s")
    finding.must(files <= SPARE_FILES, f"open files {files:+d}")
    finding.timely(slope < 0.01, "resident memory grows less than 1 % in 10 min")
