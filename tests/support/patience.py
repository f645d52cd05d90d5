"""Waiting for a condition; the seconds bound a broken build, not a slow machine."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


async def until(true: Callable[[], bool | Awaitable[bool]], seconds: float = 60.0) -> float:
    """Wait for something to become true, and say how long it took."""
    began = time.monotonic()
    while True:
        now = true()
        if now if isinstance(now, bool) else await now:
            return time.monotonic() - began
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"not true within {seconds} s")
        await asyncio.sleep(0.01)


async def settled() -> None:
    """Let every task of the loop go on until it waits for something else."""
    for _ in range(10):
        await asyncio.sleep(0)


def awaited(happens: Callable[[], T], seconds: float = 60.0) -> T:
    """What it gives once that is something; a slow machine may take its time."""
    ends = time.monotonic() + seconds
    while not (found := happens()):
        if time.monotonic() > ends:
            raise TimeoutError(f"nothing within {seconds} s")
        time.sleep(0.02)
    return found


def heard(connection: socket.socket) -> None:
    """Wait until the server, on this machine, has read all that was sent on an IPv4 connection."""
    ours, theirs = map(_in_proc, (connection.getsockname(), connection.getpeername()))

    def read() -> bool:
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        queues = {(row[1], row[2]): row[4] for row in rows}
        sent, unread = queues.get((ours, theirs), ""), queues.get((theirs, ours), "")
        return int(sent[:8] or "0", 16) == int(unread[9:] or "0", 16) == 0

    awaited(read)


def _in_proc(address: tuple[str, int]) -> str:
    host, port = address
    return f"{socket.inet_aton(host)[::-1].hex().upper()}:{port:04X}"
