"""Engine: what is served, in this process. No HTTP, no worker processes, and Redis only if named.

    from litapi import Engine

    engine = Engine.open("google/siglip2-base-patch16-224")     # or a folder, or nothing: the demo
    engine.texts(["a red circle"])                              # (1, dim) float32
    engine.images(["one.png", image])                           # paths, encoded bytes, PIL images

The towers, their precision, checks, preprocessing and loop are the workers' own, and the cache and
its keys those of the HTTP processes, so vectors equal the server's. A tower is loaded when it is
first needed. Calls may come from several threads; their items share batches.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import queue
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Literal, Self, TypeVar, Unpack, overload

import numpy as np

from cache import Entry, Fingerprint, Found, MemoryTier, RedisStore, State, VectorCache
from litapi.calibration import Calibration
from litapi.checkpoint import Checkpoint
from litapi.client import ItemRefused
from litapi.client.embedded import TEMPLATE, Embedded, OnError, Options, Scores, captions, listed
from litapi.client.embedded import Vectors as Rows
from litapi.client.pictures import Picture, encoded, size_of
from litapi.client.spans import bar, cut, side_by_side
from litapi.devices import planned
from litapi.errors import ItemError
from litapi.http.answer import Vectors
from litapi.http.embedder import Embedder, Query
from litapi.http.inputs import Reader
from litapi.loop import Pipeline
from litapi.messages import Item, Job, JobId, Kind, Reply
from litapi.quality.verdict import admit
from litapi.scoring import ensemble
from litapi.serving import Service, seal
from litapi.settings import Settings
from litapi.towers import ImageTower, TextTower, Tower
from litapi.transport.client import Asker
from litapi.transport.port import Answered, PortClosed, WorkerPort

AT_ONCE = 2  # spans under way: the model computes one while the next is read and looked up
SPAN_ITEMS = {"text": 2048, "image": 256}
SPAN_SIZE = {"text": 2 << 20, "image": 64 << 20}  # characters, and bytes of encoded images
PATIENCE = 1.0  # seconds for a look-up in Redis: nobody waits for a single answer here
QUEUE = 1 << 17  # vectors on their way to Redis
FLUSH = 30.0  # seconds to write them; a lost one costs its computation another time
MB = 1 << 20
KNOWN = (State.HIT_L1, State.HIT_L2)
T = TypeVar("T")


class Room(WorkerPort):
    """One loaded tower with the service's own loop, whose jobs come from this very process."""

    def __init__(
        self, tower: Tower, facts: dict[str, Any], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.facts = facts
        self.lanes = 1
        self._events = loop
        self._asked: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._replies: dict[JobId, asyncio.Future[Reply]] = {}
        self._numbers = itertools.count()
        self._thread = _thread(Pipeline(tower, self).run)

    async def submit(self, kind: Kind, job: Job, asker: Asker) -> Reply:
        """The reply to a job, in the event loop; there is one kind here, and one client."""
        del kind, asker
        job.id = 0, next(self._numbers)
        self._replies[job.id] = self._events.create_future()
        self._asked.put(job)
        return await self._replies[job.id]

    def fetch(self, lane: int = 0) -> Job:
        del lane
        job = self._asked.get()
        if job is None:
            raise PortClosed
        return job

    def begin(self, job_id: JobId) -> bool:
        """Always: nobody here leaves."""
        del job_id
        return True

    def send(self, replies: Sequence[Answered]) -> None:
        for job_id, reply in replies:
            future = self._replies.pop(job_id)
            self._events.call_soon_threadsafe(future.set_result, reply)

    def close(self) -> None:
        """No more jobs; the loop's threads end when they come to this."""
        self._asked.put(None)
        self._thread.join()


class Engine:
    """One checkpoint as `settings` would serve it, on one device. Close it, or use it in `with`."""

    def __init__(
        self, settings: Settings, checkpoint: Checkpoint, device: str | None = None
    ) -> None:
        self.settings, self.checkpoint = settings, checkpoint
        self.device = device or planned(settings)[0]
        found = Calibration.of(settings.calibration, checkpoint)
        self._service = Service(settings, checkpoint, calibration=found)
        self._reader = Reader(settings, None)
        self._rooms: dict[Kind, Room] = {}
        self._embedders: dict[Kind, Embedder] = {}
        self._loading = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = _thread(self._loop.run_forever)
        self._cache = self._run(_opened(settings, checkpoint.dim))

    @classmethod
    def open(cls, model: str = "", **options: Any) -> Self:
        """A name of the hub, a folder, or the demo checkpoint; `options` as in docs/settings.md.

        Raises:
            SettingsError, CheckpointError: an option or a checkpoint cannot be used.
            Refused: the precision loses too much on this checkpoint, and `accept_loss` is off.
        """
        return cls.of(Settings.read({"model": model, **options}, {}))

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The same from settings. Raises CheckpointError, Refused."""
        checkpoint = Checkpoint.named(settings.model, settings.revision, settings.compile_folder)
        engine = cls(settings, checkpoint)
        admit(settings, checkpoint, engine.device)
        return engine

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what waits for Redis, end all threads and free the towers."""
        if self._loop.is_closed():
            return
        self.flush()
        for room in self._rooms.values():
            room.close()
        self._rooms.clear()
        self._embedders.clear()
        self._run(self._cache.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        gc.collect()  # a compiled tower is held by cycles

    @overload
    def texts(
        self, texts: Iterable[str], *, on_error: Literal["return"], **options: Unpack[Options]
    ) -> Embedded: ...

    @overload
    def texts(
        self,
        texts: Iterable[str],
        *,
        on_error: Literal["raise"] = "raise",
        **options: Unpack[Options],
    ) -> Rows: ...

    def texts(
        self, texts: Iterable[str], *, on_error: OnError = "raise", **options: Unpack[Options]
    ) -> Rows | Embedded:
        """(n, dim) float32 in the order given, or with `on_error="return"` an `Embedded`.

        Raises:
            ItemsRefused: some are refused, once all others are done.
            CheckpointError: the tower cannot be loaded, or would be served wrong.
        """
        texts = list(texts)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("every text must be a str")
        found = self._embed("text", texts, map(len, texts), options)
        return found.whole() if on_error == "raise" else found

    @overload
    def images(
        self, images: Iterable[Picture], *, on_error: Literal["return"], **options: Unpack[Options]
    ) -> Embedded: ...

    @overload
    def images(
        self,
        images: Iterable[Picture],
        *,
        on_error: Literal["raise"] = "raise",
        **options: Unpack[Options],
    ) -> Rows: ...

    def images(
        self, images: Iterable[Picture], *, on_error: OnError = "raise", **options: Unpack[Options]
    ) -> Rows | Embedded:
        """As `texts`, of paths, encoded bytes and PIL images."""
        images = list(images)
        found = self._embed("image", images, map(size_of, images), options)
        return found.whole() if on_error == "raise" else found

    def score(self, texts: Iterable[str], images: Iterable[Picture]) -> Scores:
        """Every text against every image, as /score has it."""
        return Scores.of(self.texts(texts), self.images(images), self._service.scoring)

    def classify(
        self,
        images: Iterable[Picture],
        labels: Sequence[str],
        template: str | Sequence[str] = TEMPLATE,
        threshold: float | None = None,
    ) -> Scores:
        """Every image against every label, in the order given.

        With several templates a label's vector is the mean of its captions', of length 1 again.
        `threshold` says from which probability on a label holds.

        Raises: as `texts`; ValueError where a template holds no {label}.
        """
        columns = self.texts(captions(labels, template))
        means = ensemble(columns, len(listed(template)))
        return Scores.of(self.images(images), means, self._service.scoring, threshold)

    # -- for whoever has items of the service's own kind ------------------------------------------

    def load(self, kind: Kind) -> dict[str, Any]:
        """Load a tower, unless it is there, and say what was loaded. Raises CheckpointError."""
        with self._loading:
            if kind not in self._rooms:
                self._rooms[kind] = self._loaded(kind)
            return self._rooms[kind].facts

    @property
    def space(self) -> str:
        """What all vectors that may be compared with these have in common."""
        return self.checkpoint.space

    def fingerprint(self, kind: Kind) -> Fingerprint:
        """What a vector's key in the cache is made with. Raises CheckpointError."""
        self.load(kind)
        return self._service.fingerprints()[kind]

    def embed(self, kind: Kind, items: Sequence[Item | ItemError], patches: int = 0) -> Found:
        """A vector or an error for each item, and where it is from. Raises CheckpointError."""
        self.load(kind)
        return self._run(self._found(kind, items, patches))

    def flush(self, seconds: float = FLUSH) -> None:
        """Write to Redis what waits for it, where there is one."""
        if self._cache.store is not None:
            self._run(self._cache.store.flush(seconds))

    # -- parts ---------------------------------------------------------------------------------

    def _loaded(self, kind: Kind) -> Room:
        tower: Tower = (TextTower if kind == "text" else ImageTower)(self.settings, self.checkpoint)
        tower.setup(self.device)
        facts: dict[str, Any] = tower.board[f"{kind}_0"]
        self._service.precision[kind] = facts["precision"]
        self._service.arithmetic[kind] = facts["arithmetic"]
        room = Room(tower, facts, self._loop)
        print_ = {kind: self._service.fingerprints()[kind]}
        self._embedders[kind] = Embedder(print_, self._cache, room.submit, math.inf)
        return room

    def _embed(
        self, kind: Kind, values: Sequence[Any], sizes: Iterable[int], options: Options
    ) -> Embedded:
        self.load(kind)
        asked, patches = options.get("dimensions"), self._patches(options)
        if not 1 <= (asked or 1) <= self.checkpoint.dim:
            raise ValueError(f"dimensions: this model has {self.checkpoint.dim}")
        written = Vectors("float", asked, self.checkpoint.dim)
        into = Embedded.blank(len(values), written.dimension, self.space)
        read: Any = self._reader.text if kind == "text" else self._picture

        async def send(span: range) -> None:
            items = await asyncio.to_thread(lambda: [read(values[place]) for place in span])
            refused = {
                p: one for p, one in zip(span, items, strict=True) if type(one) is ItemRefused
            }
            into.errors.update(refused)
            places = [place for place in span if place not in refused]
            good = [one for one in items if type(one) is not ItemRefused]
            _fill(into, places, await self._found(kind, good, patches), written)

        spans = cut(sizes, SPAN_ITEMS[kind], SPAN_SIZE[kind])
        with bar(len(values), options.get("progress", False)) as tell:
            self._run(side_by_side(spans, send, AT_ONCE, tell))
        return into

    def _patches(self, options: Options) -> int:
        patches = options.get("max_num_patches") or 0
        if patches and not self.checkpoint.naflex:
            raise ValueError("max_num_patches: this model takes images of a fixed resolution")
        if not 0 <= patches <= self.settings.most_patches:
            raise ValueError(f"max_num_patches: 1 to {self.settings.most_patches}")
        return patches

    def _picture(self, picture: Picture) -> Item | ItemError | ItemRefused:
        data = encoded(picture, self.settings.max_image_bytes)
        return data if isinstance(data, ItemRefused) else self._reader.image_bytes(data)

    async def _found(self, kind: Kind, items: Sequence[Item | ItemError], patches: int) -> Found:
        return (await self._embedders[kind].embed(items, Query(patches))).found

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C: nobody waits for the rest
            future.cancel()
            raise


def _fill(into: Embedded, places: Sequence[int], found: Found, written: Vectors) -> None:
    for place, value, state in zip(places, found.values, found.states, strict=True):
        if isinstance(value, Entry):
            into.vectors[place] = np.frombuffer(written.octets(value), "<f4")
            into.cached[place] = state in KNOWN
        elif isinstance(value, ItemError):
            into.errors[place] = ItemRefused(value.code, value.message)


async def _opened(settings: Settings, dim: int) -> VectorCache:
    """The cache that is asked for; made in the event loop that will use it."""
    if settings.cache == "off":
        return VectorCache(dim, MemoryTier(0))
    memory, store = MemoryTier(settings.memory_cache_mb * MB), None
    if settings.redis_url is not None:
        ttl = settings.cache_ttl_days * 86_400
        store = RedisStore(settings.redis_url, budget=PATIENCE, ttl=ttl, queue=QUEUE)
    cache = VectorCache(dim, memory, store, secret=seal(settings.cache_tenant))
    await cache.start()
    return cache


def _thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
