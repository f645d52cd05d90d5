"""What the kernel says of processes: which they are, memory, open files, and whether they live."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.rig.server_process import ServerProcess, family, maps_torch

Role = Literal["http", "worker"]


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


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def ticks(pid: int) -> int:
    """CPU time of a process, in ticks of the kernel."""
    return int(_stat(pid)[11]) + int(_stat(pid)[12])


def births(pids: Iterable[int]) -> dict[int, int]:
    """Process → when it was started, of those that live; a number used again differs by it."""
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            found[pid] = int(_stat(pid)[19])
    return found


def survivors(known: dict[int, int]) -> Collection[int]:
    """Which of the processes that `births` gave still live."""
    return {pid for pid, when in births(known).items() if when == known[pid] and not _zombie(pid)}


def _zombie(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return _stat(pid)[0] == "Z"
    return True


def roles(root: int) -> dict[int, Role]:
    """HTTP processes and workers of a server.

    A worker has torch in its memory; an HTTP process leads a session of its own and runs the
    server's command.
    """
    found: dict[int, Role] = {}
    for pid, line in family(root).items():
        with contextlib.suppress(OSError):
            if maps_torch(pid):
                found[pid] = "worker"
            elif pid != root and "litapi serve" in line and os.getsid(pid) == pid:
                found[pid] = "http"
    return found


def workers(server: ServerProcess) -> dict[int, int]:
    """The workers of a server, as process → when it was started."""
    return births(pid for pid, role in roles(server.pid).items() if role == "worker")


def http_processes(server: ServerProcess) -> dict[int, int]:
    return births(pid for pid, role in roles(server.pid).items() if role == "http")
