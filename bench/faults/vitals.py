"""What the kernel says of processes: which they are, memory, open files, and whether they live.

`Watch` watches memory and `/livez` during an attack, from a process of its own: the attacking one
is busy, and its delays would be part of what it measures. A process that grows beyond `TOO_MUCH_MB`
is killed, so that an attack that succeeds does not exhaust the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection, HTTPException
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

import psutil

from bench.rig.server_process import ServerProcess, family, maps_torch

Role = Literal["http", "worker"]
SAMPLE_EVERY = 0.05  # seconds
ASK_EVERY = 0.02  # seconds between an answer of /livez and the next question
LOOK_EVERY = 0.5  # seconds between two looks at which processes there are
TOO_MUCH_MB = 3000.0  # of one process, which is ended then
SILENT_AFTER = 60.0  # seconds without an answer of /livez
_MEMORY = re.compile(r"^(VmRSS|RssShmem):\s+(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Vitals:
    """Of several processes together."""

    resident_mb: float
    shared_mb: float
    files: int

    @classmethod
    def of(cls, pids: Iterable[int]) -> Vitals:
        """Now; a process that ended meanwhile counts nothing."""
        resident = shared = files = 0
        for pid in pids:
            with contextlib.suppress(OSError):
                held = dict(_MEMORY.findall(Path(f"/proc/{pid}/status").read_text()))
                files += len(os.listdir(f"/proc/{pid}/fd"))
                resident += int(held.get("VmRSS", 0))
                shared += int(held.get("RssShmem", 0))
        return cls(resident / 1024, shared / 1024, files)


def births(pids: Iterable[int]) -> dict[int, psutil.Process]:
    """Those that live, by number; one whose number is used again is another one."""
    found = {}
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            found[pid] = psutil.Process(pid)
    return found


def survivors(known: Mapping[int, psutil.Process]) -> Collection[int]:
    """Which of the processes that `births` gave still live; a zombie does not."""
    left = set()
    for pid, process in known.items():
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                left.add(pid)
    return left


def roles(root: int) -> dict[int, Role]:
    """HTTP processes and workers of a server.

    A worker has torch in its memory; an HTTP process leads a process group and runs the
    server's command.
    """
    found: dict[int, Role] = {}
    for pid, line in family(root).items():
        with contextlib.suppress(OSError):
            if maps_torch(pid):
                found[pid] = "worker"
            elif pid != root and "litapi serve" in line and os.getpgid(pid) == pid:
                found[pid] = "http"
    return found


def _in_role(role: Role, server: ServerProcess) -> dict[int, psutil.Process]:
    return births(pid for pid, what in roles(server.pid).items() if what == role)


workers, http_processes = partial(_in_role, "worker"), partial(_in_role, "http")


@dataclass(slots=True)
class Seen:
    """What was seen: memory in MB by process and in memory files, seconds until `/livez` said yes.

    `shared` is the whole machine's, as a file on its way from one process to another is in nobody's
    table: first, most, last.
    """

    roles: dict[int, Role] = field(default_factory=dict)  # by process
    first: dict[int, float] = field(default_factory=dict)
    peak: dict[int, float] = field(default_factory=dict)
    last: dict[int, float] = field(default_factory=dict)
    shared: list[float] = field(default_factory=list)
    asked: int = 0
    failed: int = 0
    longest: float = 0.0
    ended: list[str] = field(default_factory=list)

    def grown(self, role: Role, idle: Mapping[int, float], how: str = "peak") -> float:
        """The most that a process of a role held above what it, or the least of them, had idle."""
        sizes: dict[int, float] = getattr(self, how)
        mine = [pid for pid, what in self.roles.items() if what == role]
        least = min((idle[pid] for pid in mine if pid in idle), default=0.0)
        return max((sizes[pid] - idle.get(pid, least) for pid in mine if pid in sizes), default=0.0)

    @property
    def shared_grown(self) -> float:
        return self.shared[1] - self.shared[0]


class Watch:
    """`async with Watch(server) as watch:` and afterwards `watch.seen`."""

    def __init__(self, server: ServerProcess) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, server.url, server.pid)
        self._child = context.Process(target=watch, args=arguments, daemon=True)
        self.seen = Seen()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._child.start)
        await asyncio.to_thread(self._pipe.recv)  # it has looked once
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pipe.send("stop")
        self.seen = await asyncio.to_thread(self._pipe.recv)
        await asyncio.to_thread(self._child.join)


# -- the child -----------------------------------------------------------------------------------


def watch(pipe: Connection, url: str, root: int) -> None:
    """Watch until told to stop; then send what was seen.

    In a session of its own: the kernel shares the cores among sessions, and a probe that waits for
    the attackers' turn would tell how busy they are.
    """
    os.setsid()
    seen, over, looked = Seen(roles(root)), threading.Event(), time.monotonic()
    asking = threading.Thread(target=_ask, args=(url, seen, over), daemon=True)
    asking.start()
    _sample(seen)
    pipe.send("ready")
    while not pipe.poll(SAMPLE_EVERY):
        if time.monotonic() - looked >= LOOK_EVERY:
            seen.roles.update(roles(root))
            looked = time.monotonic()
        _sample(seen)
    over.set()
    asking.join(SILENT_AFTER)
    _sample(seen)
    pipe.send(seen)


def _sample(seen: Seen) -> None:
    for pid in seen.roles:
        size = Vitals.of([pid]).resident_mb
        if size == 0.0:  # it has ended
            continue
        seen.first.setdefault(pid, size)
        seen.peak[pid] = max(size, seen.peak.get(pid, 0.0))
        seen.last[pid] = size
        if size > TOO_MUCH_MB:
            seen.ended.append(f"{seen.roles[pid]} process at {size:.0f} MB")
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
    now = psutil.virtual_memory().shared / 2**20
    first, most, _ = seen.shared or (now, now, now)
    seen.shared = [first, max(most, now), now]


def _ask(url: str, seen: Seen, over: threading.Event) -> None:
    while not over.wait(ASK_EVERY):
        began, alive = time.monotonic(), False
        with (
            contextlib.suppress(OSError, HTTPException),
            closing(HTTPConnection(urlsplit(url).netloc, timeout=SILENT_AFTER)) as connection,
        ):
            connection.request("GET", "/livez", headers={"connection": "close"})
            alive = connection.getresponse().status == 200
        seen.asked += 1
        seen.failed += not alive
        seen.longest = max(seen.longest, time.monotonic() - began)
