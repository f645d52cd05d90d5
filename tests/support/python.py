"""A Python of its own, for what a process loads, prints or holds."""

import subprocess
import sys

from bench.rig.server_process import ROOT


def ran(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """What came of a script that must go well."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
