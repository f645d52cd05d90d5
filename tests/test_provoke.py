"""Faults on demand: only for marked texts, and only what they ask for."""

import subprocess
import sys

import pytest

from bench.rig.server_process import ROOT
from litapi.provoke import MARK, ProvokedFault, provoke, provoked


def test_only_a_marked_text_asks_for_a_fault() -> None:
    """An ordinary text is ordinary."""
    assert provoked(f"{MARK}raise now") == "raise"
    assert provoked("raise") == ""
    assert provoked("a " + MARK) == ""
    assert provoked(f"{MARK}spin 7".encode()) == "spin"
    assert provoked(b"\xff\xd8\xff") == ""


def test_a_batch_without_faults_passes() -> None:
    """Empty names do nothing."""
    provoke(["", ""])


def test_raise_raises() -> None:
    """The batch fails with an error of its own class."""
    with pytest.raises(ProvokedFault):
        provoke(["", "raise"])


def test_exit_ends_the_process() -> None:
    """As a crash would, without cleaning up."""
    code = "from litapi.provoke import provoke; provoke(['exit']); print('still here')"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert run.returncode == 99
    assert run.stdout == b""
