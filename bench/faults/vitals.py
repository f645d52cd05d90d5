"""What the kernel says of processes: memory, open files, and whether they live."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Vitals:
    """Of several processes together."""

    resident_mb: float
    shared_mb: float
    files: int

    @classmethod
    def of(cls, pids: Iterable[int]) -> Vitals:
        """Now; a process that ended meanwhile counts nothing."""
        resident = shared = files = 0
        for pid in pids:
            with contextlib.suppress(OSError):
                status = _status(pid)
                files += len(os.listdir(f"/proc/{pid}/fd"))
                resident += status.get("VmRSS", 0)
                shared += status.get("RssShmem", 0)
        return cls(resident / 1024, shared / 1024, files)


def _status(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    pairs = (line.split(":", 1) for line in lines if line.endswith(" kB"))
    return {name: int(text.split()[0]) for name, text in pairs}


def born(pid: int) -> int:
    """When a process was started, in ticks of the kernel; a number used again differs by it."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def births(pids: Iterable[int]) -> dict[int, int]:
    """Process → when it was started, of those that live."""
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            found[pid] = born(pid)
    return found


def survivors(known: dict[int, int]) -> Collection[int]:
    """Which of the processes that `births` gave still live."""
    return {pid for pid, when in births(known).items() if when == known[pid] and not _zombie(pid)}


def _zombie(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True
