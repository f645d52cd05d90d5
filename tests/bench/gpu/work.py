"""Steps for the tests of what plays them; each runs in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from bench.gpu.step import Task


def well(task: Task) -> None:
    """Finds something, in two goes."""
    task.add("rows", {"batch": 1})
    task.add("rows", {"batch": 2})


def breaks(task: Task) -> None:
    """Finds something and fails."""
    task.note(found=1)
    raise ValueError("what broke")


def dies(task: Task) -> None:
    """As one does that the kernel kills for its memory."""
    task.note(found=1)
    os._exit(3)


def hangs(task: Task) -> None:
    """Finds something and goes on for ever, deaf to SIGTERM, and so does what it started."""
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
    )
    task.note(child=child.pid)
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            task.note(asked=True)
