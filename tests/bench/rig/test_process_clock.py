"""CPU time of another process."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from bench.rig.process_clock import cpu_seconds

SPIN = """
import threading, time
def spin():
    ends = time.thread_time() + 0.2
    while time.thread_time() < ends: pass
thread = threading.Thread(target=spin)
thread.start(); thread.join()
print("done", flush=True)
input()
"""


def test_work_is_counted_and_sleep_is_not() -> None:
    """Of this very process."""
    before = cpu_seconds(os.getpid())
    time.sleep(0.2)
    slept = cpu_seconds(os.getpid())
    ends = time.process_time() + 0.1
    while time.process_time() < ends:
        pass
    worked = cpu_seconds(os.getpid())
    assert slept - before < 0.1 <= worked - slept


def test_threads_that_ended_are_counted_too() -> None:
    """And the figure is the one that the system's own tools give, but finer."""
    command, pipe = [sys.executable, "-c", SPIN], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        process.stdout.readline()
        times = psutil.Process(process.pid).cpu_times()
        assert cpu_seconds(process.pid) >= 0.2
        assert cpu_seconds(process.pid) == pytest.approx(times.user + times.system, abs=0.05)
        process.communicate(b"\n")


def test_a_process_that_is_gone_has_no_clock() -> None:
    """Instead of another's."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(ProcessLookupError):
        cpu_seconds(process.pid)
