"""Guardians: a process does not outlive the one that asked for it."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from notebooks.figures.guardian import ROOT, guard
from tests.support.patience import awaited

SLEEPER = [sys.executable, "-c", "import time; time.sleep(300)"]
ASKS = """
import os, signal, sys
from notebooks.figures.guardian import guard
keep = guard(int(sys.argv[1]))
print("guarded", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_is_ended_when_the_one_that_asked_is_killed() -> None:
    """Killed: so that nothing of it could run to clean up."""
    with subprocess.Popen(SLEEPER) as sleeper:
        try:
            command = [sys.executable, "-c", ASKS, str(sleeper.pid)]
            subprocess.run(command, cwd=ROOT, check=False, timeout=60)
            assert sleeper.wait(60) != 0
        finally:
            sleeper.kill()


def test_a_process_that_is_guarded_lives_on_meanwhile() -> None:
    """And its guardian goes when it goes."""
    with subprocess.Popen(SLEEPER) as sleeper:
        guardian = guard(sleeper.pid)
        try:
            awaited(lambda: _watches(guardian.pid))
            assert sleeper.poll() is None
            assert guardian.poll() is None
        finally:
            sleeper.kill()
        assert guardian.wait(60) == 0


def _watches(guardian: int) -> bool:
    """Whether it holds the descriptor of a process."""
    with contextlib.suppress(OSError):
        return any("pidfd" in os.readlink(one) for one in Path(f"/proc/{guardian}/fd").iterdir())
    return False


def test_a_guardian_of_nobody_goes_at_once() -> None:
    """The process may have ended before the guardian could look."""
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    assert guard(gone.pid).wait(60) == 0
