"""Start a server process, wait until it is ready, and end it with its whole process group.

Nothing that is `started` here stays behind. SIGTERM, once something was started, means what Ctrl-C
means, so that every `with` ends what it holds. Where this process is killed, the kernel sends a
signal to all that it started. That tie is to a thread, so one thread starts them all, and lives as
long as the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from bench.rig.port import free_port

ROOT = Path(__file__).parent.parent.parent
READY_WITHIN = 300.0  # seconds; two gigabytes are read from a cold disk
GOODBYE = 5.0
ERROR = re.compile(r"[\w.]*(Error|Exception): \S")
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
_starter = ThreadPoolExecutor(1)


class Absent(Exception):
    """What was to be started is not installed or cannot run here; the text says why."""


class StartError(RuntimeError):
    """It ended, or was not ready in time."""


def started(
    command: Sequence[str], last_signal: int = signal.SIGTERM, **options: Any
) -> subprocess.Popen[bytes]:
    """A process that gets this signal when this one is gone; `options` are Popen's."""
    main = threading.current_thread() is threading.main_thread()
    if main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    tie = partial(_libc.prctl, _PR_SET_PDEATHSIG, last_signal) if hasattr(_libc, "prctl") else None
    start = partial[subprocess.Popen[bytes]](subprocess.Popen, command, preexec_fn=tie, **options)
    return _starter.submit(start).result()


@contextmanager
def child(
    command: Sequence[str],
    ready: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
    said: str = "",
    times: int = 1,
    folder: Path = ROOT,
) -> Iterator[int]:
    """Its process id, once it is `ready` and its log holds `said` so many times.

    It runs in `folder`, has a process group of its own, and nobody in it outlives the `with`.

    Raises:
        StartError: it did not start; with the end of its log.
    """
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        process = started(
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            await_start(process, Path(log.name), lambda text: text.count(said) >= times and ready())
            yield process.pid
        finally:
            _end(process)


@contextmanager
def serving(
    command: Callable[[int], Sequence[str]],
    path: str,
    environment: Mapping[str, str] | None = None,
    said: str = "",
    times: int = 1,
    folder: Path = ROOT,
) -> Iterator[tuple[str, int]]:
    """URL and process id of a server, by its command on a free port, once it answers to `path`."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with child(command(port), answers(f"{url}{path}"), environment, said, times, folder) as pid:
        yield url, pid


def await_start(
    process: subprocess.Popen[bytes],
    log: Path,
    ready: Callable[[str], bool],
    within: float = READY_WITHIN,
) -> None:
    """Wait until it is `ready`, which is told the log so far. Raises StartError, the log noted."""
    ends = time.monotonic() + within
    while time.monotonic() < ends:
        text = log.read_text(errors="replace")
        if process.poll() is not None:
            raise _failed("it ended at its start", text)
        if ready(text):
            return
        time.sleep(0.05)
    raise _failed(f"it was not ready within {within:.0f} s", text)


def _failed(how: str, log: str) -> StartError:
    error = StartError(f"{how}: {last(log)}")
    error.add_note(log)
    return error


def answers(url: str) -> Callable[[], bool]:
    """Whether a GET of that URL is answered with 200 now."""

    def ask() -> bool:
        try:
            return httpx.get(url, timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    return ask


def last(text: str) -> str:
    """The last line of a log that names an error, or else the last that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if ERROR.match(line)]
    return (errors or lines or ["no word"])[-1][:200]


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the first, then SIGKILL to the rest of its group: LitServe leaves orphans."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GOODBYE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
