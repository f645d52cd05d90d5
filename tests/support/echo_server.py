"""A tiny embedding server that can be told to misbehave: the counterpart of the load generator.

Runs in a thread on a port of its own. `behave(number)` says how the n-th request is answered; what
it received stays in `items` and `heads`.
"""

import asyncio
import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

DIMENSION = 8
Spoilt = Literal["", "fewer", "long", "dimension"]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one request is answered."""

    delay: float = 0.0  # of this answer alone
    stall: float = 0.0  # of the whole server
    status: int = 200
    half: bool = False  # hang up in the middle of the body
    silent: bool = False  # hang up without an answer
    endless: bool = False  # never answer
    garbage: bool = False  # not HTTP
    chunked: bool = False
    old: bool = False  # HTTP/1.0, hang up after the answer
    unmeasured: bool = False  # no length, hang up after the answer
    early: bool = False  # a 100 Continue before the answer
    spoilt: Spoilt = ""


def well(_number: int) -> Behaviour:
    """Nothing to complain of."""
    return Behaviour()


class EchoServer:
    """`with EchoServer(behave) as server: …server.url…`"""

    def __init__(self, behave: Callable[[int], Behaviour] = well) -> None:
        self.items: list[str] = []
        self.heads: list[str] = []
        self.paths: list[str] = []
        self.connections = 0
        self.answered = 0
        self._behave = behave
        self._seen: set[str] = set()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._client, "127.0.0.1", 0, backlog=1024, limit=1 << 24)
        )
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection goes on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        request, *lines = head.split("\r\n")
        headers = {name: text.strip() for name, _, text in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers["content-length"]))
        behaviour, path = self._behave(len(self.heads)), request.split()[1]
        self.heads.append(head)
        self.paths.append(path)
        time.sleep(behaviour.stall)
        await asyncio.sleep(behaviour.delay)
        if behaviour.endless:
            await asyncio.sleep(3600)
        if behaviour.silent:
            return False
        self.answered += 1
        answer = self._answer(headers, path, body, behaviour)
        writer.write(answer[: -len(answer) // 3] if behaviour.half else answer)
        await writer.drain()
        ends = behaviour.half or behaviour.old or behaviour.unmeasured
        return not ends and "http/1.1" in head

    def _answer(self, asked: dict[str, str], path: str, body: bytes, behaviour: Behaviour) -> bytes:
        if behaviour.garbage:
            return b"what do you want?\r\n\r\n"
        if behaviour.status != 200:
            return _framed(behaviour, b'{"error":{}}', [])
        items = _items(asked, body)
        states = ["hit-l1" if item in self._seen else "miss" for item in items]
        self._seen.update(items)
        self.items += items
        vectors = _spoil([vector(item) for item in items], behaviour.spoilt)
        headers = [f"X-Cache: {','.join(states)}", "Server-Timing: cache;dur=0.250, infer;dur=2.5"]
        if "application/octet-stream" in asked.get("accept", ""):
            shape = f"{len(vectors)},{len(vectors[0])}"
            headers += ["Content-Type: application/octet-stream", f"X-Embedding-Shape: {shape}"]
            return _framed(behaviour, np.asarray(vectors, "<f4").tobytes(), headers)
        content = json.dumps(_form(path, vectors, len(items))).encode()
        return _framed(behaviour, content, [*headers, "Content-Type: application/json"])


def vector(item: str) -> list[float]:
    """A unit vector that is a function of the item."""
    seed = int.from_bytes(hashlib.sha256(item.encode()).digest()[:8])
    drawn = np.random.default_rng(seed).normal(size=DIMENSION)
    return [float(value) for value in drawn / np.linalg.norm(drawn)]


def _items(asked: dict[str, str], body: bytes) -> list[str]:
    if asked.get("content-type", "").startswith("image/"):
        return [base64.b64encode(body).decode()]
    content, names = json.loads(body), ("input", "text", "texts", "image", "images")
    value = next(content[name] for name in names if name in content)
    return value if isinstance(value, list) else [value]


def _form(path: str, vectors: list[list[float]], items: int) -> dict[str, Any]:
    if path.endswith("/embeddings"):
        rows = [base64.b64encode(np.asarray(one, "<f4").tobytes()).decode() for one in vectors]
        data = [{"object": "embedding", "index": i, "embedding": e} for i, e in enumerate(rows)]
        return {"object": "list", "data": data[::-1]}  # in any order: `index` says which is which
    return {"embedding": vectors[0]} if items == len(vectors) == 1 else {"embeddings": vectors}


def _spoil(vectors: list[list[float]], how: Spoilt) -> list[list[float]]:
    first = vectors[0]
    changed: dict[str, list[list[float]]] = {
        "fewer": vectors[1:],
        "long": [[2 * value for value in first], *vectors[1:]],
        "dimension": [[1.0] + [0.0] * len(first) for _ in vectors],
    }
    return changed.get(how, vectors)


def _framed(behaviour: Behaviour, content: bytes, headers: list[str]) -> bytes:
    version = "HTTP/1.0" if behaviour.old else "HTTP/1.1"
    lines = [f"{version} {behaviour.status} So Be It", *headers]
    if behaviour.chunked:
        lines.append("Transfer-Encoding: chunked")
        cut = len(content) // 3
        pieces = [content[:cut], content[cut:]]
        content = b"".join(b"%x;note=1\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"
    elif not behaviour.unmeasured:
        lines.append(f"Content-Length: {len(content)}")
    early = b"HTTP/1.1 100 Continue\r\n\r\n" if behaviour.early else b""
    return early + "\r\n".join([*lines, "", ""]).encode() + content
