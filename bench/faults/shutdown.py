"""Row 14: the server is told to end while it has work.

The clients do as a balancer does: they go on until `/readyz` says no, and then ask no more.
Whatever they asked until then is answered. A second signal ends everything at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time

from bench.faults.row import Finding
from bench.faults.stage import IMPATIENT, SMALL_QUEUE, Stage, ready, until
from bench.faults.vitals import births, survivors

CLIENTS = 8
GRACE = 30.0  # seconds, the default of --drain-timeout
BY_SIGTERM = 128 + signal.SIGTERM


async def shut_down(stage: Stage, finding: Finding) -> None:
    """Once with patience, once without."""
    server = await stage.spent(*SMALL_QUEUE)
    known = births(server.family())
    async with (
        await stage.traffic(server, stage.heavy, fresh=1.0) as traffic,
        finding.under(traffic, stage.of(CLIENTS, 4)),
    ):
        await asyncio.sleep(2.0)
        began = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        while await ready(server.url):
            await asyncio.sleep(0.02)
        unready = time.monotonic() - began
    code = await asyncio.to_thread(server.stop, signal.SIGCONT, GRACE + 10)
    seconds = time.monotonic() - began
    finding.must(code == 0, f"exit code 0, not {code}")
    await _none_left(finding, known)
    finding.note(f"/readyz 503 after {unready:.2f} s, exit code {code} after {seconds:.1f} s")
    finding.timely(unready <= 0.5, "/readyz says 503 at once")
    finding.must(seconds <= GRACE, "ended within the grace time")
    await _at_once(stage, finding)


async def _at_once(stage: Stage, finding: Finding) -> None:
    server = await stage.spent(*IMPATIENT)
    known = births(server.family())
    async with (
        await stage.traffic(server, stage.heavy, fresh=1.0) as traffic,
        traffic.flowing(CLIENTS),  # what they lose here is meant to be lost
    ):
        await asyncio.sleep(1.0)
        began = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        await asyncio.sleep(0.2)
        code = await asyncio.to_thread(server.stop, signal.SIGTERM, GRACE)
        seconds = time.monotonic() - began
    finding.must(code == BY_SIGTERM, f"the second signal ends it: {BY_SIGTERM}, not {code}")
    finding.timely(seconds <= 1.0, "the second signal ends it at once")
    finding.note(f"second signal: exit code {code} after {seconds:.1f} s")
    await _none_left(finding, known)


async def _none_left(finding: Finding, known: dict[int, int]) -> None:
    async def gone() -> bool:
        return not survivors(known)

    await until(gone, 5.0)
    finding.must(not survivors(known), f"no process is left: {len(survivors(known))} are")
