"""Rows 3 and 4: processes of the server end without a word, in the middle of their work."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from bench.faults.row import Finding
from bench.faults.stage import Stage, ready, until
from bench.faults.vitals import Vitals, http_processes, workers
from bench.rig.server_process import ServerProcess

CLIENTS = 6
MENDED_WITHIN = 120.0  # seconds
GROWTH_MB = 64.0


async def kill_oldest(
    server: ServerProcess, kind: Callable[[ServerProcess], dict[int, int]]
) -> tuple[int, float]:
    """kill -9 the oldest process of a kind, so that they take turns: which, seconds until ready."""
    before = kind(server)
    victim = min(before, key=lambda pid: (before[pid], pid))
    os.kill(victim, signal.SIGKILL)

    async def mended() -> bool:
        now = kind(server)
        return victim not in now and len(now) == len(before) and await ready(server.url)

    seconds = await until(mended, MENDED_WITHIN)
    if seconds is None:
        raise RuntimeError(f"not ready again within {MENDED_WITHIN:.0f} s")
    return victim, seconds


async def killed_workers(stage: Stage, finding: Finding) -> None:
    """Both towers lose their worker in turn; not one question is lost over it."""
    server = await stage.common()
    first, killed, seconds = set(workers(server)), set(), []
    async with (
        await stage.traffic(server, fresh=0.5) as traffic,
        finding.under(traffic, CLIENTS),
    ):
        for _ in range(stage.of(10, 2)):
            victim, mended = await kill_oldest(server, workers)
            killed.add(victim)
            seconds.append(mended)
            await asyncio.sleep(stage.of(2.0, 0.5))
    finding.must(first <= killed, "both towers lost a worker")
    finding.note(f"{len(seconds)} kills, ready again in at most {max(seconds):.1f} s")


async def killed_http(stage: Stage, finding: Finding) -> None:
    """Only the open connections of the HTTP process drop, and a second try succeeds."""
    server = await stage.common()
    seconds = []
    async with await stage.traffic(server, fresh=0.5, retry=True) as traffic:
        await kill_oldest(server, http_processes)  # the first one grew before it was measured
        before = Vitals.of(server.family())
        async with finding.under(traffic, CLIENTS):
            for _ in range(stage.of(10, 2)):
                await asyncio.sleep(stage.of(2.0, 0.5))
                seconds.append((await kill_oldest(server, http_processes))[1])
            await asyncio.sleep(0.5)
        after = Vitals.of(server.family())
    kills, tally = len(seconds), finding.tally
    finding.must(0 < tally.retried <= CLIENTS * kills, "no more drops than open connections")
    grown, shared = after.resident_mb - before.resident_mb, after.shared_mb - before.shared_mb
    finding.must(grown <= GROWTH_MB, f"resident memory grew by {grown:.0f} MB")
    finding.must(shared <= 8, f"shared memory grew by {shared:.0f} MB")
    finding.note(
        f"{kills} kills, ready again in at most {max(seconds):.1f} s, {tally.retried} second tries,"
        f" resident {grown:+.0f} MB, shared {shared:+.1f} MB"
    )
