"""The machine and the software of a measurement, for result files; no host name and no path."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.rig.child import ROOT
from litapi.model.engines import choose_engine
from litapi.process import cores as cores
from litapi.process import processor, version

PIN = re.compile(r"^([A-Za-z0-9._-]+)==")


@dataclass(frozen=True, slots=True)
class Machine:
    """What of a machine and its software bears on speed."""

    cpu: str
    instructions: list[str]
    engine: str  # of a tower on the CPU where none is asked for, with its version
    cores: int
    memory_gb: float
    gpu: str | None
    driver: str | None
    os: str
    python: str
    packages: dict[str, str]
    commit: str | None
    dirty: bool | None

    @classmethod
    def read(cls) -> Machine:
        cpuinfo, engine = Path("/proc/cpuinfo"), choose_engine("auto", "cpu")
        commit = _said("git", "-C", str(ROOT), "rev-parse", "HEAD")
        changes = _said("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
        return cls(
            cpu=cpu_model(cpuinfo.read_text() if cpuinfo.exists() else ""),
            instructions=processor("cpu"),
            engine=f"{engine} {version(engine)}",
            cores=cores(),
            memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
            gpu=_said("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"),
            driver=_said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
            os=_system(),
            python=platform.python_version(),
            packages=installed(pinned((ROOT / "requirements.txt").read_text())),
            commit=commit,
            dirty=None if commit is None else bool(changes),
        )


def cpu_model(cpuinfo: str) -> str:
    """The name of the processor in /proc/cpuinfo, or its architecture where none stands there."""
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def pinned(requirements: str) -> list[str]:
    return [found[1] for line in requirements.splitlines() if (found := PIN.match(line))]


def installed(names: list[str]) -> dict[str, str]:
    """Their installed versions; what is not installed is left out."""
    return {name: found for name in names if (found := version(name))}


def _system() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        name = platform.system()
    return f"{name}, kernel {platform.release()}"


def _said(*command: str) -> str | None:
    """What a program printed, or None where it is missing, fails or says nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
