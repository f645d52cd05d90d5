"""One tower on one device, as a Ray actor: a block in, its Parquet file out.

    read ─► key ─► look up in Redis ─► the service's loop: decode ∥ predict ─► keep ─► write

Two blocks are in it at a time, so that the model computes one while the other is read, looked up or
written. Vectors are in Redis before their block is finished, under the keys and in the form of the
service. A worker that must not compute says so in its reports, for an exception out of an actor
would be retried. It knows nothing of Ray.
"""

from __future__ import annotations

import asyncio
import math
import pickle
import threading
import time
from typing import Any

from cache import Entry, MemoryTier, RedisStore, State, VectorCache
from deploy.bulk.attempt import Attempts
from deploy.bulk.block import Block
from deploy.bulk.intake import Intake
from deploy.bulk.task import Report, Task
from deploy.bulk.vector_file import Row, VectorFile
from litapi.checkpoint import CheckpointError
from litapi.errors import ItemError, ItemInternal
from litapi.http.embedder import Embedder, Query
from litapi.logs import configure
from litapi.loop import Pipeline
from litapi.messages import Item, Job, Kind, Reply
from litapi.serving import Service, seal
from litapi.settings import Settings
from litapi.towers import ImageTower, TextTower, Tower
from litapi.transport.client import Asker
from litapi.transport.local import LocalPort

AT_ONCE = 2  # blocks in a worker
PATIENCE = 1.0  # seconds for a look-up: nobody waits for a single answer here
FLUSH = 30.0  # seconds to write a block's vectors to a slow Redis; a lost one is given up at once
QUEUE = 1 << 17  # vectors on their way to Redis: those of two blocks, whatever their size
MB = 1 << 20
KNOWN = (State.HIT_L1, State.HIT_L2)


class Worker:
    """Called by Ray Data with batches of one row, a packed `Block`; answers a packed `Report`."""

    def __init__(self, task: Task) -> None:
        self._refusal = ""
        try:
            self._open(task.here())
        except CheckpointError as error:
            self._refusal = str(error)

    def _open(self, task: Task) -> None:
        self._task, settings, kind = task, task.settings, task.source.kind
        configure(settings)
        tower, facts = _load(settings, task)
        service = Service(
            settings,
            task.checkpoint,
            precision={kind: facts["precision"]},
            arithmetic={kind: facts["arithmetic"]},
        )
        fingerprint = service.fingerprints()[kind]
        if task.fingerprint not in ("", fingerprint.hex):
            raise CheckpointError(
                "the finished blocks were computed in other arithmetic than this worker's "
                f"({facts['arithmetic']} on {facts['device']})"
            )
        self._attempts = Attempts(task.output)
        self._intake = Intake(settings, kind)
        self._file = VectorFile(task.output, task.checkpoint.dim, service.name, fingerprint.hex)
        self._loop = asyncio.new_event_loop()
        _thread(self._loop.run_forever)
        self._port = LocalPort(self._loop)
        _thread(Pipeline(tower, self._port).run)
        self._cache = _cache(settings, task.checkpoint.dim)
        asyncio.run_coroutine_threadsafe(self._cache.start(), self._loop).result()
        self._embedder = Embedder({kind: fingerprint}, self._cache, self._submit, math.inf)

    async def _submit(self, kind: Kind, job: Job, asker: Asker) -> Reply:
        del kind, asker  # there is one of each
        return await self._port.submit(job)

    def __call__(self, batch: Any) -> dict[str, list[bytes]]:
        """From and to tables of one column and one row."""
        block: Block = pickle.loads(batch.column("block")[0].as_py())
        return {"report": [pickle.dumps(self._report(block))]}

    def _report(self, block: Block) -> Report:
        if self._refusal:
            return Report(refusal=self._refusal)
        if not self._attempts.begin(block):
            return Report(refusal=f"{block.name}: a row of it seems to end every worker it meets")
        report = asyncio.run_coroutine_threadsafe(self._embed(block), self._loop).result()
        self._attempts.end(block)
        return report

    async def _embed(self, block: Block) -> Report:
        began = time.time()
        items = await asyncio.to_thread(self._items, block)
        found = (await self._embedder.embed(items, Query())).found
        rows = [*map(_row, found.values)]
        if any(map(_failed, rows)):  # not by a fault of the items: once more
            found = (await self._embedder.embed(items, Query())).found
            rows = [*map(_row, found.values)]
        del items  # the bytes of images: the next block's are on their way
        if len(rows) > 1 and all(map(_failed, rows)):
            return Report(refusal=f"{block.name}: this worker embeds nothing; its log says why")
        if self._cache.store is not None:
            await self._cache.store.flush(FLUSH)
        await asyncio.to_thread(self._file.write, block, rows)
        return Report(
            rows=len(rows),
            refused=sum(isinstance(row, ItemError) for row in rows),
            known=sum(state in KNOWN for state in found.states),
            began=began,
            ended=time.time(),
        )

    def _items(self, block: Block) -> list[Item | ItemError]:
        source = self._task.source
        folder = source.folder(block)
        return [self._intake.item(value, folder) for value in source.values(block)]


def _failed(row: Row) -> bool:
    return isinstance(row, ItemInternal)


def _row(value: Entry | Exception | None) -> Row:
    """What is not an item's own fault is in the worker's log, and may go well another time."""
    return value if isinstance(value, Entry | ItemError) else ItemInternal()


def _load(settings: Settings, task: Task) -> tuple[Tower, dict[str, Any]]:
    """The tower, and what it tells of itself. Raises CheckpointError."""
    kind = task.source.kind
    tower: Tower = (TextTower if kind == "text" else ImageTower)(settings, task.checkpoint)
    tower.board = {}
    tower.setup(task.device)
    return tower, tower.board[f"{kind}_0"]


def _cache(settings: Settings, dim: int) -> VectorCache:
    memory = MemoryTier(settings.memory_cache_mb * MB)
    if settings.redis_url is None:
        return VectorCache(dim, memory)
    ttl = settings.cache_ttl_days * 86_400
    store = RedisStore(settings.redis_url, budget=PATIENCE, ttl=ttl, queue=QUEUE)
    return VectorCache(dim, memory, store, secret=seal(settings.cache_tenant))


def _thread(work: Any) -> None:
    threading.Thread(target=work, daemon=True).start()
