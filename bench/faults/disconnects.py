"""Row 13: clients that leave in the middle of their question."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from random import Random

from bench.faults.question import as_floats
from bench.faults.row import Finding
from bench.faults.stage import Stage, counter, post, until
from bench.faults.traffic import Traffic
from bench.faults.vitals import Vitals
from bench.rig.server_process import ServerProcess

CLIENTS = 6
LEAVES_WITHIN = 0.06  # seconds
SETTLED_WITHIN = 30.0
SPARE_FILES = 16
IN_FLIGHT = "siglit_items_in_flight"
CROWD = 16  # clients that leave together, each with ...
ITEMS = 64  # ... so many texts: several times what a worker takes up at once
SLOW = [f"siglit-test: slow {n}" for n in range(4)]  # they hold the worker up for a second each
GATHERED_WITHIN = 3.0  # seconds; less than that


async def disconnects(stage: Stage, finding: Finding) -> None:
    """Half of the clients leave; nothing of theirs stays, and the others get their answers."""
    server = await stage.common()
    async with (
        await stage.traffic(server, fresh=1.0) as traffic,
        await stage.traffic(server, fresh=1.0) as leaving,
    ):
        await traffic.closed(CLIENTS, stage.of(3.0, 0.5))
        before = Vitals.of(server.family())
        async with finding.under(traffic, CLIENTS):
            left = await _leave(leaving, stage.of(30.0, 4.0))
    in_flight = await _in_flight(server, lambda n: n == 0, SETTLED_WITHIN)
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
    waiting = await _crowd(server)
    in_flight = await _in_flight(server, lambda n: n == 0, SETTLED_WITHIN)
    dropped, computed = (now - then for now, then in zip(await _texts(server), before, strict=True))
    asked = CROWD * ITEMS
    finding.must(in_flight == 0, f"no item of the crowd is left in flight: {in_flight:.0f}")
    finding.must(dropped > 0, f"of {waiting:.0f} texts left waiting some are dropped")
    finding.must(computed < asked, f"not all {asked} texts of the crowd are computed")
    finding.note(f"of {asked} texts whose clients left {dropped:.0f} dropped, {computed:.0f} done")


async def _crowd(server: ServerProcess) -> float:
    """Clients that leave when all of them wait, or else when time is up; how many texts wait."""
    clients = [asyncio.create_task(_waits(server, SLOW))]
    await _in_flight(server, lambda n: n >= len(SLOW), GATHERED_WITHIN)
    for number in range(CROWD):
        texts = [f"impatient {number} {text}" for text in range(ITEMS)]
        clients.append(asyncio.create_task(_waits(server, texts)))
    everything = len(SLOW) + CROWD * ITEMS
    waiting = await _in_flight(server, lambda n: n >= everything, GATHERED_WITHIN)
    for client in clients:
        client.cancel()
    await asyncio.wait(clients)
    return waiting


async def _waits(server: ServerProcess, texts: list[str]) -> None:
    asked = as_floats(texts)
    await post(server.url, asked.path, asked.body, asked.headers)


async def _in_flight(server: ServerProcess, holds: Callable[[float], bool], within: float) -> float:
    """How many items are under way, once that holds or time is up."""

    async def held() -> bool:
        return holds(await counter(server.url, IN_FLIGHT))

    await until(held, within, every=0.02)
    return await counter(server.url, IN_FLIGHT)


async def _texts(server: ServerProcess) -> tuple[float, float]:
    names = ("siglit_items_given_up_total", "siglit_batch_items_sum")
    given_up, computed = [await counter(server.url, name, 'kind="text"') for name in names]
    return given_up, computed
