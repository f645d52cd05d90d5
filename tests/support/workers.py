"""The workers among the processes of a server."""

import contextlib
import os

from bench.rig.server_process import ServerProcess, maps_torch


def workers(server: ServerProcess) -> set[int]:
    """Processes that have torch: those of both towers."""
    found = set()
    for pid in server.family():
        with contextlib.suppress(OSError):
            if maps_torch(pid):
                found.add(pid)
    return found


def idle(pid: int) -> bool:
    """Whether the kernel runs all its threads only when nobody else wants the core: bulk's."""
    threads = map(int, os.listdir(f"/proc/{pid}/task"))
    return all(os.sched_getscheduler(thread) == os.SCHED_IDLE for thread in threads)
