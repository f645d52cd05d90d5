"""Row 15: minutes of ordinary work, in which nothing may grow."""

from __future__ import annotations

import asyncio
import time

import numpy as np

from bench.faults.row import Finding
from bench.faults.stage import Stage
from bench.faults.vitals import Vitals

CLIENTS = 4
TEN_MINUTES = 600.0
SPARE_FILES = 16


async def soak(stage: Stage, finding: Finding) -> None:
    """Mixed load, half of it computed; memory and open files read once a second."""
    server = await stage.common()
    seconds = stage.of(300.0, 15.0)
    read: list[tuple[float, Vitals]] = []
    async with (
        await stage.traffic(server, fresh=0.5) as traffic,
        finding.under(traffic, CLIENTS),
    ):
        await asyncio.sleep(seconds / 3)  # pools, caches and allocators fill
        began = time.monotonic()
        family = list(server.family())
        while time.monotonic() < began + seconds * 2 / 3:
            read.append((time.monotonic() - began, Vitals.of(family)))
            await asyncio.sleep(1.0)
    finding.must(finding.tally.refused == 0, "0 refused")
    slope, files = _slope(read), read[-1][1].files - read[0][1].files
    finding.note(f"resident memory {slope:+.2%} in 10 min, open files {files:+d}, {seconds:.0f} s")
    finding.must(files <= SPARE_FILES, f"open files {files:+d}")
    finding.timely(slope < 0.01, "resident memory grows less than 1 % in 10 min")


def _slope(read: list[tuple[float, Vitals]]) -> float:
    """Growth in ten minutes as a share of the memory at the start."""
    times = [when for when, _ in read]
    sizes = [vitals.resident_mb for _, vitals in read]
    return float(np.polyfit(times, sizes, 1)[0]) * TEN_MINUTES / sizes[0]
