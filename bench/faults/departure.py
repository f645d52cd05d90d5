"""Row 13: clients that leave in the middle of their question."""

from __future__ import annotations

import asyncio
import contextlib
import time
from random import Random

import aiohttp

from bench.faults.row import Finding
from bench.faults.stage import Stage, counter
from bench.faults.traffic import Traffic
from bench.faults.vitals import Vitals
from bench.server_process import ServerProcess

CLIENTS = 6
LEAVES_WITHIN = 0.06  # seconds
SETTLED_WITHIN = 30.0
SPARE_FILES = 16
CROWD = 16  # clients that leave together, each with ...
ITEMS = 64  # ... so many texts: several times what a worker takes up at once
CROWD_WAITS = 0.5  # seconds; half of what the first of their texts holds the worker up
SLOW = "siglit-test: slow"


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
    await _crowd_leaves(server, finding)


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


async def _crowd_leaves(server: ServerProcess, finding: Finding) -> None:
    """What still waits when its clients leave is dropped; what was begun is done and kept."""
    before = await _texts(server)
    await asyncio.gather(*(_impatient(server, number) for number in range(CROWD)))
    in_flight = await _settled(server)
    dropped, computed = (now - then for now, then in zip(await _texts(server), before, strict=True))
    asked = CROWD * ITEMS
    finding.must(in_flight == 0, f"no item of the crowd is left in flight: {in_flight:.0f}")
    finding.must(dropped > 0, "queue entries of clients that left are dropped")
    finding.must(computed < asked, f"not all {asked} texts of the crowd are computed")
    finding.note(f"of {asked} texts whose clients left {dropped:.0f} dropped, {computed:.0f} done")


async def _texts(server: ServerProcess) -> tuple[float, float]:
    """Texts given up and texts that went through the model, so far."""
    names = ("siglit_items_given_up_total", "siglit_batch_items_sum")
    given_up, computed = [await counter(server.url, name, 'kind="text"') for name in names]
    return given_up, computed


async def _impatient(server: ServerProcess, number: int) -> None:
    texts = [f"impatient {number} {text}" for text in range(ITEMS)]
    if number == 0:
        texts[0] = SLOW
    timeout = aiohttp.ClientTimeout(total=CROWD_WAITS)
    with contextlib.suppress(TimeoutError):
        async with (
            aiohttp.ClientSession(server.url, timeout=timeout) as session,
            session.post("/embed_text", json={"texts": texts}),
        ):
            return


async def _settled(server: ServerProcess) -> float:
    ends = time.monotonic() + SETTLED_WITHIN
    while True:
        items = await counter(server.url, "siglit_items_in_flight")
        if items == 0 or time.monotonic() > ends:
            return items
        await asyncio.sleep(0.2)
