"""How many cores this process may use.

The machine's count is wrong in a container: torch with sixty threads on a share of four cores is
slower than with four. So it is the least of the affinity and of the cgroup's quota, rounded up.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
# Turns in which an idle thread of torch watches for work before it sleeps. Several processes have
# threads for all cores; with libgomp's own number they would watch each other's work, not do it.
SPINS = "2000"


def cores(cgroup: Path = CGROUP) -> int:
    """Cores of this process, at least 1."""
    allowed = len(os.sched_getaffinity(0))
    quota = _quota(cgroup)
    return max(1, min(allowed, math.ceil(quota)) if quota else allowed)


def sleep_soon() -> None:
    """Let idle threads of torch sleep soon, here and in children, where torch is not loaded yet."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def _quota(cgroup: Path) -> float:
    """Cores' worth of time by cgroup version 2, else version 1; 0: no limit."""
    limit, period = [*_words(cgroup / "cpu.max"), "", ""][:2]
    if not limit:
        limit, period = (
            "".join(_words(cgroup / "cpu" / f"cpu.cfs_{name}_us")) for name in ("quota", "period")
        )
    if not (limit.isdecimal() and period.isdecimal()):  # "max", "-1", or nothing to read
        return 0.0
    return int(limit) / max(1, int(period))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
