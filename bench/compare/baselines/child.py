"""A process that serves, from its start to the end of its whole family."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx

from bench.rig.server_process import ROOT

READY_WITHIN = 300.0  # seconds; two gigabytes are read from a cold disk
GOODBYE = 5.0
ERROR = re.compile(r"[\w.]*(Error|Exception): \S")


class StartError(Exception):
    """It ended, or was not ready in time."""


@contextmanager
def child(
    command: Sequence[str],
    health: str,
    environment: Mapping[str, str] | None = None,
    said: str = "",
    times: int = 1,
) -> Iterator[int]:
    """Its process id, once the URL `health` answers 200 and its log holds `said` so many times.

    It has a process group of its own, and nobody in it outlives the `with`.

    Raises:
        StartError: it is not to be had; with the end of its log.
    """
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        process = subprocess.Popen(
            list(command),
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _await_ready(process, log, health, said, times)
            yield process.pid
        finally:
            _end(process)


def _await_ready(
    process: subprocess.Popen[bytes], log: IO[bytes], health: str, said: str, times: int
) -> None:
    ends = time.monotonic() + READY_WITHIN
    while time.monotonic() < ends:
        text = Path(log.name).read_text(errors="replace")
        if process.poll() is not None:
            raise StartError(f"it ended at its start: {_last(text)}")
        if (not said or text.count(said) >= times) and _healthy(health):
            return
        time.sleep(0.1)
    raise StartError(f"it was not ready within {READY_WITHIN:.0f} s: {_last(text)}")


def _healthy(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def _last(text: str) -> str:
    """The last line of a log that names an error, or else the last that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if ERROR.match(line)]
    return (errors or lines or ["no word"])[-1][:200]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the first, then end whoever of the group is left: LitServe leaves orphans."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GOODBYE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
