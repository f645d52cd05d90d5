"""A TCP proxy that misbehaves on demand, between a cache and a healthy Redis.

PASS hands everything on. DELAY hands it on after `delay` seconds. BLACKHOLE takes what the client
sends and says nothing. HALF hands on the first half of each reply and hangs up. RESET hangs up at
once with a TCP reset. Changing `fault` acts on open connections as well as on new ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from enum import Enum, auto
from typing import Self
from urllib.parse import urlsplit


class Fault(Enum):
    PASS = auto()
    DELAY = auto()
    BLACKHOLE = auto()
    HALF = auto()
    RESET = auto()


class FaultProxy:
    """`async with FaultProxy(server.url) as proxy:` and give `proxy.url` to the cache."""

    def __init__(self, target: str, *, delay: float = 0.05) -> None:
        self._target = urlsplit(target)
        self.fault = Fault.PASS
        self.delay = delay
        self.accepted = 0
        self._talks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        if self._talks:
            await asyncio.wait(self._talks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        talk = asyncio.create_task(self._talk(reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.fault is Fault.RESET:
            reset(writer)
            return
        try:
            there, back = await self._open()
        except OSError:  # Redis is down: its clients shall notice
            reset(writer)
            return
        ways = [
            asyncio.create_task(self._requests(reader, back, writer)),
            asyncio.create_task(self._replies(there, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)
            writer.close()
            back.close()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self._target.hostname, self._target.port)

    async def _requests(
        self, reader: asyncio.StreamReader, back: asyncio.StreamWriter, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self.fault is Fault.RESET:
                    reset(writer)
                    return
                if self.fault is not Fault.BLACKHOLE:
                    back.write(data)
                    await back.drain()

    async def _replies(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await there.read(65536):
                if self.fault is Fault.BLACKHOLE:
                    continue
                if self.fault is Fault.DELAY:
                    await asyncio.sleep(self.delay)
                writer.write(data[: len(data) // 2] if self.fault is Fault.HALF else data)
                await writer.drain()
                if self.fault is Fault.HALF:
                    return


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset: linger zero throws away what is unsent."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
