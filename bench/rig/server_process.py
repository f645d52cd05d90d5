"""A real siglit server as a child process on a free port, for tests of the whole."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

import psutil

from bench.rig.child import ROOT as ROOT
from bench.rig.child import answers, await_start, started
from bench.rig.port import free_port

_SCHED = 2  # of the kernel's three clocks of a process: user and system time as scheduled


class ServerProcess:
    """`python -m litapi serve` with the given options; `with` starts it and ends it.

    In float32 where no option says otherwise: "auto" gives each machine vectors of its own.
    """

    def __init__(self, *flags: str, ready_within: float = 240.0, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._flags = flags
        self._ready_within = ready_within
        self._environment = environment
        self._log = tempfile.NamedTemporaryFile("w+b", suffix=".log")  # noqa: SIM115 - lives as long as this
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, wait: bool = True) -> Self:
        """Start it; by default until `/readyz` says 200."""
        others = ("REDIS_URL", "MODEL")
        clean = {k: v for k, v in os.environ.items() if k[:7] != "SIGLIT_" and k not in others}
        ours = {"PORT": str(self.port), "SIGLIT_HOST": "127.0.0.1", "SIGLIT_PRECISION": "float32"}
        command = [sys.executable, "-m", "litapi", "serve", *self._flags]
        self.process = started(
            command,
            cwd=ROOT,
            env={**clean, **ours, **self._environment},
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        if wait:
            try:
                self.await_ready()
            except BaseException:
                self.kill()
                raise
        return self

    def kill(self) -> None:
        """End it and all its descendants at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def await_ready(self) -> None:
        """Wait for `/readyz`. Raises StartError where it ends or takes too long."""
        if self.process is not None:
            ready = answers(f"{self.url}/readyz")
            log = Path(self._log.name)
            await_start(self.process, log, lambda _: ready(), self._ready_within)

    def log(self) -> str:
        return Path(self._log.name).read_text(errors="replace")

    @property
    def pid(self) -> int:
        if self.process is None:
            raise RuntimeError("not started")
        return self.process.pid

    def family(self) -> dict[int, str]:
        return family(self.pid)

    def stop(self, how: signal.Signals = signal.SIGTERM, within: float = 120.0) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(how)
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def family(root: int) -> dict[int, str]:
    found = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        first = psutil.Process(root)
        for one in (first, *first.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                found[one.pid] = " ".join(one.cmdline())
    return found


def resident_mb(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss) / (1 << 20)


def maps_torch(pid: int) -> bool:
    """Whether a process has the library of an engine in its memory: torch or OpenVINO."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return "libtorch" in maps or "libopenvino" in maps


def cpu_seconds(pid: int) -> float:
    """User and system time that the process has used, to the nanosecond.

    `/proc/PID/stat` counts in ticks of 10 ms and `/proc/PID/schedstat` only the first thread. The
    kernel's CPU clock of a process counts all its threads, ended ones too; its number is made of
    the process id as clock_getcpuclockid(3) does it, which Python does not offer.

    Raises:
        ProcessLookupError: there is no such process.
    """
    try:
        return time.clock_gettime_ns(~pid << 3 | _SCHED) / 1e9
    except OSError:
        raise ProcessLookupError(pid) from None
