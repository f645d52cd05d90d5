"""One kind of request, sent for a while over kept connections, as fast as it is answered.

Answered requests are counted. At the end up to one request a connection is left unanswered, yet the
server has begun it: the slower the system, the larger that share, to the slower one's disadvantage.

`greeting` is the least that a server can do, for comparison: uvicorn as siglit runs it, and "hello
world". GET answers at once; POST reads the body first. Options of uvicorn are those of
`litapi.server`, but for siglit's guard against slow clients, which is part of what siglit costs.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from bench.load.connection import Address, Connection, Fault, head_of
from bench.rig.child import serving

PATIENCE = 30.0
Message = MutableMapping[str, Any]
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"11")]
SERVE = (
    "-m", "uvicorn", "bench.micro.sender:hello", "--log-level", "warning", "--no-access-log",
    "--no-server-header", "--lifespan", "off", "--http", "httptools", "--loop", "uvloop",
    "--timeout-keep-alive", "75", "--backlog", "4096",
)  # fmt: skip


class SendError(Exception):
    """Not every request was answered well; the figures would be of something else."""


@dataclass(frozen=True, slots=True)
class Request:
    """Requests that differ in their bodies only; they are sent in turn."""

    path: str
    bodies: tuple[bytes, ...] = ()  # none: GET
    accept: str = "*/*"
    content_type: str = "application/json"

    @property
    def headers(self) -> dict[str, str]:
        return {"accept": self.accept, "content-type": self.content_type}

    def raw(self) -> Iterator[bytes]:
        if not self.bodies:
            return itertools.repeat(head_of(self.path, 0, {}, "GET"))
        return itertools.cycle([head_of(self.path, len(b), self.headers) + b for b in self.bodies])


def send(url: str, request: Request, seconds: float, connections: int) -> tuple[int, float]:
    """Send for that long; answered requests and seconds.

    Raises:
        SendError: an answer is missing or no success.
    """
    try:
        return asyncio.run(_send(Address.of(url), request, seconds, connections))
    except Fault as fault:
        raise SendError(str(fault)) from None


async def _send(
    address: Address, request: Request, seconds: float, connections: int
) -> tuple[int, float]:
    made = [await Connection.to(address, PATIENCE) for _ in range(connections)]
    began, requests = time.monotonic(), request.raw()
    ends = began + seconds
    counts = await asyncio.gather(*(_keep_asking(one, requests, ends) for one in made))
    took = time.monotonic() - began
    for one in made:
        one.close()
    return sum(counts), took


async def _keep_asking(connection: Connection, requests: Iterator[bytes], ends: float) -> int:
    count = 0
    while time.monotonic() < ends:
        reply = await connection.ask(next(requests), PATIENCE)
        if reply.status != 200:
            raise SendError(f"status {reply.status}")
        count += 1
    return count


async def hello(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    more = scope["method"] == "POST"
    while more:
        more = (await receive()).get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"hello world"})


def greeting() -> AbstractContextManager[tuple[str, int]]:
    """URL and process id of the server as a child process."""
    return serving(lambda port: [sys.executable, *SERVE, "--port", str(port)], "/")
