"""Child processes end with their parent, however it ended: no orphan holds a GPU or a port.

A family is a parent that is killed and a child that should follow. Both hold the pipe that the
test reads, so the end of the pipe is the end of the last of them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from litapi.lifeline import die_with_parent

ROOT = Path(__file__).parent.parent
LONG = 60.0  # a child that does not follow its parent lives for this long

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part is Linux's")


def say(word: str) -> None:
    """One word to the test."""
    os.write(1, word.encode() + b"\n")


# -- families, each in processes of its own --------------------------------------------------------


def tied(how: int = signal.SIGKILL) -> None:
    """A child that is tied to its parent and waits."""
    die_with_parent(how)
    say("ready")
    time.sleep(LONG)
    say("survived")


def asked_to_end() -> None:
    """A child that is asked to end instead of killed, and says so."""

    def heard(number: int, frame: object) -> None:
        say("asked")
        os._exit(0)

    signal.signal(signal.SIGTERM, heard)
    tied(signal.SIGTERM)


def born_late() -> None:
    """A child that comes to tie itself when its parent is already gone."""
    parent = os.getppid()
    say("ready")
    while os.getppid() == parent:
        time.sleep(0.005)
    die_with_parent()
    time.sleep(0.2)
    say("survived")


def family(child: str) -> None:
    """The parent: it starts the child as LitServe starts workers, and waits to be killed."""
    process = multiprocessing.get_context("spawn").Process(target=globals()[child])
    process.start()
    time.sleep(LONG)


def interrupted() -> None:
    """Ctrl-C reaches the whole process group; a tied child leaves it to the parent."""
    die_with_parent()
    os.kill(os.getpid(), signal.SIGINT)
    say("survived")


def on_another_system() -> None:
    """Where there is no such promise of the kernel's."""
    sys.platform = "darwin"
    die_with_parent()
    say("survived")


# -- tests -----------------------------------------------------------------------------------------


def start(call: str) -> subprocess.Popen[bytes]:
    """Run a call of a function of this file in a Python of its own."""
    command = [sys.executable, "-c", f"from tests.test_lifeline import *; {call}"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


def last_words(child: str) -> list[str]:
    """Kill the parent once the child is ready; what the child said until it ended."""
    with start(f"family({child!r})") as parent:
        assert parent.stdout is not None
        first = parent.stdout.readline().decode().strip()
        parent.send_signal(signal.SIGKILL)
        rest, _ = parent.communicate(timeout=LONG / 2)
        return [first, *rest.decode().split()]


def test_a_child_is_killed_with_its_parent() -> None:
    """kill -9 of the server leaves no worker behind."""
    assert last_words("tied") == ["ready"]


def test_a_child_may_be_asked_instead_of_killed() -> None:
    """The signal is the child's choice, so one with something to finish can finish it."""
    assert last_words("asked_to_end") == ["ready", "asked"]


def test_a_child_whose_parent_has_already_ended_ends_at_once() -> None:
    """Between the start of a worker and its promise lie seconds of imports."""
    assert last_words("born_late") == ["ready"]


def test_a_tied_child_leaves_an_interrupt_to_its_parent() -> None:
    """Ctrl-C drains the server; workers that died of it would lose what is under way."""
    with start("interrupted()") as child:
        assert child.communicate(timeout=LONG / 2)[0] == b"survived\n"
    assert child.returncode == 0


def test_elsewhere_it_does_nothing_and_fails_nowhere() -> None:
    """Other systems have no such call, and the service starts there all the same."""
    with start("on_another_system()") as child:
        assert child.communicate(timeout=LONG / 2)[0] == b"survived\n"
    assert child.returncode == 0
