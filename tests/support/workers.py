"""The workers among the processes of a server."""

import contextlib

from bench.rig.server_process import ServerProcess, maps_torch


def workers(server: ServerProcess) -> set[int]:
    """Processes that have torch: those of both towers."""
    found = set()
    for pid in server.family():
        with contextlib.suppress(OSError):
            if maps_torch(pid):
                found.add(pid)
    return found
