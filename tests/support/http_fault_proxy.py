"""A proxy of HTTP that misbehaves by chance, the same chance for each seed.

It reads whole requests and hands each on over a connection of its own. DROP hangs up before the
server hears of it; BUSY and AWAY answer 429 and 503 in its stead; LOST hangs up once the server has
answered; HALF does so in the middle of the answer; DELAY holds the answer back.
"""

import asyncio
import random
import re
from collections import Counter
from enum import Enum, auto
from hashlib import sha256
from typing import Self

from bench.rig.fault_proxy import reset
from litapi.client import AsyncClient
from litapi.client.embedded import Vectors

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
WORDS = {429: b"Too Many Requests", 503: b"Service Unavailable"}


class Fault(Enum):
    DROP = auto()
    BUSY = auto()
    AWAY = auto()
    LOST = auto()
    HALF = auto()
    DELAY = auto()


class HttpFaultProxy:
    """`async with HttpFaultProxy(port, seed) as proxy:` and give `proxy.url` to the client.

    `share` of the requests meet a fault. `met` counts them; `repeated` counts requests that came
    again though their answer had been delivered whole.
    """

    def __init__(self, port: int, seed: int, share: float = 0.4) -> None:
        self._target, self._share, self._random = port, share, random.Random(seed)
        self.met: Counter[Fault | None] = Counter()
        self.repeated = 0
        self.received = 0  # bytes of requests
        self._delivered: set[bytes] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(await _message(reader), writer):
                await writer.drain()
            reset(writer)
        except (OSError, asyncio.IncompleteReadError):  # the client left, or the server did
            writer.close()

    async def _one(self, request: bytes, writer: asyncio.StreamWriter) -> bool:
        """Answer a request; False: hang up."""
        get = request.startswith(b"GET")
        fault = self._random.choice([*Fault]) if self._random.random() < self._share else None
        self.met[fault] += 1
        self.received += len(request)
        if fault in (Fault.BUSY, Fault.AWAY):
            status = 429 if fault is Fault.BUSY else 503
            head = b"HTTP/1.1 %d %b\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"
            writer.write(head % (status, WORDS[status]))
            return True
        if fault is Fault.DROP:
            return False
        digest = sha256(request.partition(b"\r\n\r\n")[2]).digest()
        self.repeated += digest in self._delivered and not get
        answer = await self._handed_on(request)
        if fault is Fault.LOST:
            return False
        if fault is Fault.HALF:
            writer.write(answer[: len(answer) // 2])
            await writer.drain()
            return False
        if fault is Fault.DELAY:
            await asyncio.sleep(self._random.uniform(0, 0.05))
        writer.write(answer)
        self._delivered.add(digest)
        return True

    async def _handed_on(self, request: bytes) -> bytes:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        back.write(request)
        answer = await _message(there)
        back.close()
        return answer


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = LENGTH.search(head)
    return head + (await reader.readexactly(int(length[1])) if length else b"")


async def embed_through(
    port: int, seed: int, texts: list[str], images: list[bytes], batch: int
) -> tuple[Vectors, Vectors, HttpFaultProxy]:
    """What a client gets through a proxy in front of the server at `port`, and that proxy."""
    async with HttpFaultProxy(port, seed) as proxy, AsyncClient(proxy.url, batch=batch) as client:
        return await client.embed_texts(texts), await client.embed_images(images), proxy
