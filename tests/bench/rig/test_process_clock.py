"""CPU time of another process."""

import os
import subprocess
import sys
import time

import pytest

from bench.rig.server_process import cpu_seconds


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


def test_a_process_that_is_gone_has_no_clock() -> None:
    """Instead of another's."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(ProcessLookupError):
        cpu_seconds(process.pid)
