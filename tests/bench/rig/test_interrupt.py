"""Ctrl-C, once and twice."""

import signal
import subprocess
import sys

import pytest

from bench.load.generator import SIGNALS, Interrupt
from bench.rig.server_process import ROOT

ASKED_TWICE = """
import os, sys, time
from bench.load.generator import Interrupt

with Interrupt() as interrupt:
    assert not interrupt.asked
    os.kill(os.getpid(), int(sys.argv[1]))
    while not interrupt.asked:
        time.sleep(0.01)
    try:
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(60.0)
    except KeyboardInterrupt:
        print("insisted")
"""


@pytest.mark.parametrize("wish", SIGNALS)
def test_the_first_signal_asks_and_the_second_one_insists(wish: signal.Signals) -> None:
    """In a process of its own, as a signal that is late would end this one."""
    command = [sys.executable, "-c", ASKED_TWICE, str(int(wish))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "insisted\n"), done.stderr


def test_afterwards_signals_mean_what_they_meant() -> None:
    """The handlers are put back, also after a failure."""
    before = [signal.getsignal(wish) for wish in SIGNALS]
    with pytest.raises(ZeroDivisionError), Interrupt():
        print(1 / 0)
    assert [signal.getsignal(wish) for wish in SIGNALS] == before
