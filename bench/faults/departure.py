"""Row 13: clients that leave in the middle of their question."""

from __future__ import annotations

import asyncio
import contextlib
import time
from random import Random

from bench.faults.row import Finding
from bench.faults.stage import Stage, counter
from bench.faults.traffic import Traffic
from bench.faults.vitals import Vitals
from bench.server_process import ServerProcess

CLIENTS = 6
LEAVES_WITHIN = 0.06  # seconds
SETTLED_WITHIN = 30.0
SPARE_FILES = 16


async def departures(stage: Stage, finding: Finding) -> None:
    """Half of the clients leave; nothing of theirs stays, and the others get their answers."""
    server = await stage.common()
    async with (
        await stage.traffic(server, fresh=1.0) as traffic,
        await stage.traffic(server, fresh=1.0) as leaving,
    ):
        await traffic.closed(CLIENTS, stage.of(3.0, 0.5))
        before = Vitals.of(server.family())
        async with traffic.flowing(CLIENTS):
            left = await _leave(leaving, stage.of(30.0, 4.0))
        finding.take(traffic.turn())
    in_flight = await _settled(server)
    await asyncio.sleep(1.0)
    files = Vitals.of(server.family()).files - before.files
    finding.must(in_flight == 0, f"no item is left in flight: {in_flight:.0f}")
    finding.must(files <= SPARE_FILES, f"open files {files:+d}")
    finding.must(left > 0, "some left")
    finding.note(f"{left} left in the middle, open files {files:+d}, 0 in flight afterwards")


async def _leave(traffic: Traffic, seconds: float) -> int:
    """As many clients as those that stay; how many questions they left."""
    rng, stop = Random(4), time.monotonic() + seconds

    async def client() -> int:
        left = 0
        while time.monotonic() < stop:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rng.uniform(0.0, LEAVES_WITHIN)):
                    await traffic.next()
                    continue
            left += 1
        return left

    return sum(await asyncio.gather(*(client() for _ in range(CLIENTS))))


async def _settled(server: ServerProcess) -> float:
    ends = time.monotonic() + SETTLED_WITHIN
    while True:
        items = await counter(server.url, "siglit_items_in_flight")
        if items == 0 or time.monotonic() > ends:
            return items
        await asyncio.sleep(0.2)
