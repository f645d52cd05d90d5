"""One kind of request, sent for a while over kept connections, as fast as it is answered.

wrk where it is installed, as it leaves the server no pause; else this project's own connections.
Both count answered requests. At the end up to one request a connection is left unanswered, yet the
server has begun it: the slower the system, the larger that share, to the slower one's disadvantage.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from bench.load.connection import Address, Connection, Fault

SCRIPT = Path(__file__).parent.parent / "wrk" / "bodies.lua"
PATIENCE = 30.0
JSON = "application/json"


class SendError(Exception):
    """Not every request was answered well; the figures would be of something else."""


@dataclass(frozen=True, slots=True)
class Request:
    """Requests that differ in their bodies only; they are sent in turn."""

    path: str
    bodies: tuple[bytes, ...] = ()  # none: GET
    accept: str = "*/*"
    content_type: str = JSON

    @property
    def method(self) -> str:
        return "POST" if self.bodies else "GET"

    def raw(self, host: str) -> Iterator[bytes]:
        """As they go over the wire, for ever."""
        head = f"{self.method} {self.path} HTTP/1.1\r\nHost: {host}\r\n"
        if not self.bodies:
            return itertools.repeat(f"{head}\r\n".encode())
        head += f"Accept: {self.accept}\r\nContent-Type: {self.content_type}\r\nContent-Length: "
        return itertools.cycle(
            [b"%b%d\r\n\r\n%b" % (head.encode(), len(b), b) for b in self.bodies]
        )


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of it."""

    requests: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Wrk:
    """One thread of wrk."""

    connections: int
    name: str = "wrk"

    def send(self, url: str, request: Request, seconds: float) -> Sent:
        """Send for that long. Raises SendError where an answer is missing or no success."""
        if request.content_type != JSON:  # the script reads a body a line
            return Own(self.connections).send(url, request, seconds)
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"".join(body + b"\n" for body in request.bodies))
            file.flush()
            how = ["--threads", "1", "--connections", str(self.connections)]
            how += ["--duration", f"{max(1, round(seconds))}s", "--timeout", f"{PATIENCE:.0f}s"]
            what = ["--script", str(SCRIPT), url, "--"]
            what += [request.method, request.path, request.accept]
            done = subprocess.run(
                ["wrk", *how, *what, file.name], capture_output=True, text=True, timeout=120
            )
        if done.returncode:
            raise SendError(f"wrk: {done.stderr.strip()}")
        said = orjson.loads(done.stdout.splitlines()[-1])
        if said["failed"] or not said["requests"]:
            raise SendError(f"{said['failed']} of {said['requests']} requests failed")
        return Sent(said["requests"], said["seconds"])


@dataclass(frozen=True, slots=True)
class Own:
    """This project's connections, all in one event loop."""

    connections: int
    name: str = "bench.load.connection"

    def send(self, url: str, request: Request, seconds: float) -> Sent:
        """As by wrk."""
        try:
            return asyncio.run(self._fire(Address.of(url), request, seconds))
        except Fault as fault:
            raise SendError(str(fault)) from None

    async def _fire(self, address: Address, request: Request, seconds: float) -> Sent:
        made = [await Connection.to(address, PATIENCE) for _ in range(self.connections)]
        requests = request.raw(f"{address.host}:{address.port}")
        began = time.monotonic()
        ends = began + seconds
        counts = await asyncio.gather(*(_keep_asking(one, requests, ends) for one in made))
        took = time.monotonic() - began
        for one in made:
            one.close()
        return Sent(sum(counts), took)


async def _keep_asking(connection: Connection, requests: Iterator[bytes], ends: float) -> int:
    count = 0
    while time.monotonic() < ends:
        reply = await connection.ask(next(requests), PATIENCE)
        if reply.status != 200:
            raise SendError(f"status {reply.status}")
        count += 1
    return count


Sender = Wrk | Own


def sender(connections: int) -> Sender:
    """The better of the two that this machine has."""
    return Wrk(connections) if shutil.which("wrk") else Own(connections)
