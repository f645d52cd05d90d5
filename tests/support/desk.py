"""The routes over stand-in towers: the right vector of every item is known, every job is kept."""

import asyncio
import base64
from collections.abc import Callable
from hashlib import sha256
from typing import Any, TypeVar

import numpy as np
import orjson
import pytest

from cache import MemoryTier, VectorCache
from litapi.calibration import Calibration
from litapi.checkpoint import Checkpoint, fetch
from litapi.errors import ItemError, ServiceError
from litapi.http.answer import Answer
from litapi.http.app import ONE_MODEL, facts
from litapi.http.embedder import Embedder, Query
from litapi.http.fetch import Fetcher
from litapi.http.inputs import Reader
from litapi.http.routes import ItemsRefused, Routes
from litapi.messages import Item, Job, Kind, Reply
from litapi.serving import Service
from litapi.settings import Settings
from litapi.transport.client import ANYONE, Asker
from tests.support.wire import Headers, arrive

DEMO = Checkpoint.open(fetch("", None))
OCTETS = {"accept": "application/octet-stream"}
RED, BLUE, BAD = b"a red image", b"a blue image", b"a bad image"
E = TypeVar("E", bound=ServiceError)


def vector_of(kind: Kind, payload: str | bytes, patches: int = 0) -> bytes:
    """The only right vector for this item: unit length, and another for any other item."""
    content = payload.encode() if isinstance(payload, str) else payload
    seed = sha256(b"%s %d " % (kind.encode(), patches if kind == "image" else 0) + content).digest()
    row = np.random.default_rng(int.from_bytes(seed[:8], "big")).standard_normal(DEMO.dim)
    return (row / np.linalg.norm(row)).astype("<f4").tobytes()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def uri(data: bytes) -> str:
    return f"data:image/png;base64,{b64(data)}"


def row_of(kind: Kind, payload: str | bytes, patches: int = 0) -> list[float]:
    """The right vector as it stands in JSON, number by number."""
    return decimals(vector_of(kind, payload, patches))


def decimals(octets: bytes) -> list[float]:
    """Raw float32 as the shortest decimals that mean the same."""
    return [float(str(number)) for number in np.frombuffer(octets, "<f4")]


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


class Towers:
    """What stands behind the embedder: it computes from the item's bytes and keeps every job."""

    def __init__(self) -> None:
        self.refuse: dict[str | bytes, str] = {BAD: "image_undecodable", "bad": "item_internal"}
        self.failure: Exception | None = None
        self.jobs: list[tuple[Kind, Job]] = []
        self.gate: asyncio.Event | None = None

    async def submit(self, kind: Kind, job: Job, asker: Asker = ANYONE) -> Reply:
        self.jobs.append((kind, job))
        await (self.gate.wait() if self.gate else asyncio.sleep(0))
        if self.failure is not None:
            raise self.failure
        items: list[str | bytes] = [*job.items]
        errors = {i: self.refuse[one] for i, one in enumerate(items) if one in self.refuse}
        rows = [
            bytes(4 * DEMO.dim)
            if i in errors
            else vector_of(kind, one[-64:] if job.ending else one, job.max_num_patches)
            for i, one in enumerate(items)
        ]
        cut = [i for i, one in enumerate(items) if isinstance(one, str) and len(one) > 64]
        tokens = [len(one) for one in items]
        return Reply(b"".join(rows), tokens, cut, errors, 0.004, 0.002, 0.001)

    @property
    def sent(self) -> list[tuple[Kind, list[str] | list[bytes]]]:
        """What each job held, in the order the jobs came."""
        return [(kind, job.items) for kind, job in self.jobs]

    def take(self) -> list[tuple[Kind, list[str] | list[bytes]]]:
        """What was sent since the last call."""
        sent = self.sent
        self.jobs.clear()
        return sent


class Desk:
    """The routes of one served checkpoint, in one event loop."""

    def __init__(
        self,
        checkpoint: Checkpoint = DEMO,
        fetcher: Fetcher | None = None,
        calibration: Calibration | None = None,
        **options: Any,
    ) -> None:
        settings = Settings.read(options, {})
        self.towers = Towers()
        self.service = Service(
            settings, checkpoint, calibration=calibration, cache_tiers=("memory",)
        )
        self.cache = VectorCache(checkpoint.dim, MemoryTier(1 << 20))
        submit, known = self.towers.submit, self.service.fingerprints()
        self.embedder = Embedder(known, self.cache, submit, settings.timeout)
        routes = Routes(self.service, Reader(settings, fetcher), self.embedder)
        self.table = {**routes.table(), **facts(self.service)}
        self.runner = asyncio.Runner()

    def post(
        self,
        path: str,
        body: Any,
        headers: Headers | None = None,
        query: bytes = b"",
        limit: int = 1 << 20,
    ) -> Answer:
        """Ask a route; a body that is not bytes is sent as JSON."""
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        incoming = arrive(content, headers, path=path, query=query, limit=limit)
        return self.runner.run(self.ask(("POST", path), incoming))

    def json(self, path: str, body: Any, *given: Any, **more: Any) -> Any:
        """What the answer says."""
        return orjson.loads(self.post(path, body, *given, **more).body)

    def get(self, path: str) -> Answer:
        return self.runner.run(self.ask(("GET", path), arrive(method="GET", path=path)))

    async def ask(self, key: tuple[str, str], incoming: Any) -> Answer:
        """What the table's route for it answers."""
        return await self.table.get(key, self.table[ONE_MODEL])(incoming)

    def embed(self, *items: Item | ItemError, query: Query | None = None) -> Query:
        """Ask the embedder itself."""
        return self.runner.run(self.embedder.embed(items, query or Query()))

    def refusal(self, path: str, body: Any, **more: Any) -> ItemsRefused:
        """The refusal of a request for its items."""
        with pytest.raises(ItemsRefused) as caught:
            self.post(path, body, **more)
        return caught.value

    def denial(self, error: type[E], path: str, body: Any, *given: Any, **more: Any) -> E:
        """The refusal of a whole request, for which no tower is asked anything."""
        before = len(self.towers.jobs)
        with pytest.raises(error) as caught:
            self.post(path, body, *given, **more)
        assert len(self.towers.jobs) == before
        return caught.value

    def close(self) -> None:
        self.runner.close()


Desks = Callable[..., Desk]


def header(answer: Answer, name: bytes) -> bytes:
    return dict(answer.headers).get(name, b"")
