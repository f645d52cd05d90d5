"""CPU time of another process."""

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


def test_work_is_counted_and_waiting_is_not() -> None:
    """Of a process that waits for its input, and then of this very one."""
    command = [sys.executable, "-c", "print('waits', flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        began, before = cpu_seconds(process.pid), cpu_seconds(os.getpid())
        ends = time.process_time() + 0.2
        while time.process_time() < ends:
            pass
        assert cpu_seconds(os.getpid()) - before >= 0.2
        assert cpu_seconds(process.pid) - began < 0.1
        process.communicate(b"\n")


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
