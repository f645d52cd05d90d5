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
            there, back = await asyncio.open_connection(self._target.hostname, self._target.port)
        except OSError:  # Redis is down: its clients shall notice
            reset(writer)
            return
        ways = [
            asyncio.create_task(self._hand_on(reader, back, writer, replies=False)),
            asyncio.create_task(self._hand_on(there, writer, writer, replies=True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)
            writer.close()
            back.close()

    async def _hand_on(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
        replies: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if self.fault is Fault.BLACKHOLE:
                    continue
                if self.fault is Fault.RESET and not replies:
                    reset(client)
                    return
                if self.fault is Fault.DELAY and replies:
                    await asyncio.sleep(self.delay)
                half = replies and self.fault is Fault.HALF
                sink.write(data[: len(data) // 2] if half else data)
                await sink.drain()
                if half:
                    return


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset: linger zero throws away what is unsent."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
