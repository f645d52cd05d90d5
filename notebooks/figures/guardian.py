"""Ends a process once the one that asked for it is gone, however that went.

    python -m notebooks.figures.guardian PID    # its standard input is a pipe that the asker holds

A kernel of Jupyter's may be killed, and then neither `finally` nor `atexit` runs in it; its end of
the pipe closes all the same. The process is held by a descriptor, so its number may be used again
without another one being ended in its place.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def guard(pid: int) -> subprocess.Popen[bytes]:
    """Let a guardian end that process when this one is gone; it goes when the process goes."""
    command = [sys.executable, "-m", "notebooks.figures.guardian", str(pid)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True)


def watch(pid: int, pipe: int) -> None:
    """Wait for the end of either; where it is the pipe's, SIGTERM."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ready, _, _ = select.select([process, pipe], [], [])
    if process not in ready:
        signal.pidfd_send_signal(process, signal.SIGTERM)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watch(int(sys.argv[1]), sys.stdin.fileno())
