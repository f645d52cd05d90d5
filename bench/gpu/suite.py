"""The tests that need a GPU, but for those that compile: for them there is no time."""

from __future__ import annotations

import re
import subprocess
import sys

from bench.gpu.step import Task
from bench.rig.server_process import ROOT

FILE = "tests/test_on_gpu.py"
COMMAND = ("-m", "pytest", FILE, "-m", "", "-k", "not compiled", "-v", "-p", "no:cacheprovider")
ENDED = re.compile(r"::\S+.* (PASSED|FAILED|ERROR|SKIPPED)\b")
CODES = (0, 1, 5)  # all passed, some failed, none is for this machine


def suite(task: Task) -> None:
    """How many ended how, as they end; then the reasons of those that failed or were skipped."""
    counts = dict.fromkeys(("PASSED", "FAILED", "ERROR", "SKIPPED"), 0)
    command = [sys.executable, *COMMAND]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            if ended := ENDED.search(line):
                counts[ended[1]] += 1
                task.note(tests=counts)
            elif line.startswith(("FAILED ", "ERROR ")):
                task.fault(line.strip())
            elif line.startswith("SKIPPED "):
                task.add("skipped", line.strip())
    task.note(tests=counts)
    if process.returncode not in CODES:
        task.fault(f"pytest ended with {process.returncode}")
