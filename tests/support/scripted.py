"""A server that says what a test wants, where no Redis would."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Scripted:
    """`pieces` are sent one by one in answer to each command; `greeting` before any."""

    pieces: Sequence[bytes] = ()
    greeting: bytes = b""
    hangs_up: bool = False
    port: int = 0
    accepted: int = 0
    heard: list[bytes] = field(default_factory=list)
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.append(writer)
        writer.write(self.greeting)
        while data := await reader.read(65536):
            self.heard.append(data)
            for piece in self.pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if self.hangs_up:
                break
        writer.close()

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def scripted(
    *pieces: bytes, greeting: bytes = b"", hangs_up: bool = False
) -> AsyncIterator[Scripted]:
    it = Scripted(pieces, greeting, hangs_up)
    server = await asyncio.start_server(it.talk, "127.0.0.1", 0)
    it.port = server.sockets[0].getsockname()[1]
    try:
        yield it
    finally:
        server.close()
        it.hang_up()
