"""Items → vectors: key, look up, join, dispatch. The way of every embedding request.

Text and image go their ways side by side; each tower gets at most one job for a request, holding
just what the cache did not know.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from cache import Entry, Fingerprint, Found, State, VectorCache, key, key_aside
from cache.key import ASIDE, key_of
from cache.tiers import Leaving
from litapi.errors import DigestUnknown, ItemError, ItemInternal, ServiceError
from litapi.http.pace import FEW, paced
from litapi.messages import KINDS, Digest, Item, Job, Kind, Reply
from litapi.transport.client import ANYONE, Asker

log = logging.getLogger("siglit.embedder")

CUT = attrgetter("truncated")

Submit = Callable[[Kind, Job, Asker], Awaitable[Reply]]


def _finished(job: Job) -> bool:
    """Whatever was sent is waited for, whoever leaves."""
    del job
    return True


def _anyone() -> Asker:
    return ANYONE


@dataclass(slots=True)
class Demand:
    """How a request wants its items embedded."""

    max_num_patches: int = 0
    read: bool = True  # False: Cache-Control: no-cache
    write: bool = True  # False: Cache-Control: no-store
    leaving: Leaving | None = None  # its future is done once the client hung up
    bulk: bool = False
    asker: Callable[[], Asker] = _anyone  # asked only when something is computed


@dataclass(slots=True)
class Spent:
    """Seconds of one request by stage, the longest where two towers ran side by side."""

    cache: float = 0.0
    queue: float = 0.0
    decode: float = 0.0
    infer: float = 0.0
    whose: Asker = ANYONE

    def looked_up(self, began: float) -> float:
        """The look-ups that began then are over; the time of that, by time.monotonic."""
        now = time.monotonic()
        self.cache = max(self.cache, now - began)
        return now

    def add(self, reply: Reply) -> None:
        """Take in what a worker reported."""
        self.queue = max(self.queue, reply.queue_seconds)
        self.decode = max(self.decode, reply.decode_seconds)
        self.infer = max(self.infer, reply.infer_seconds)

    def header(self) -> bytes:
        """In the form of `Server-Timing`, milliseconds."""
        if not (self.queue or self.decode or self.infer):  # formatting floats takes its time
            return b"cache;dur=%d.%03d, queue;dur=0.000, decode;dur=0.000, infer;dur=0.000" % (
                divmod(int(self.cache * 1e6), 1000)
            )
        return b"cache;dur=%.3f, queue;dur=%.3f%b, decode;dur=%.3f, infer;dur=%.3f" % (
            self.cache * 1e3,
            self.queue * 1e3,
            self.whose.described,
            self.decode * 1e3,
            self.infer * 1e3,
        )


class Outcome:
    """What became of each item, in order; `entries` are the vectors among it.

    `cut` has the places of texts that were too long for the model.
    """

    __slots__ = ("cut", "entries", "fetched", "found", "spent")

    def __init__(self, found: Found, spent: Spent) -> None:
        self.found = found
        self.spent = spent
        self.entries = [one for one in found.values if isinstance(one, Entry)]
        self.cut = self._cut() if any(map(CUT, self.entries)) else []
        self.fetched = False  # by URL, so that the same request may mean others the next time

    def _cut(self) -> list[int]:
        values = enumerate(self.found.values)
        return [i for i, one in values if isinstance(one, Entry) and one.truncated]

    @property
    def faults(self) -> dict[int, ItemError]:
        """Index → error of the refused items."""
        return {i: one for i, one in enumerate(self.found.values) if isinstance(one, ItemError)}


class Embedder:
    """Answers items from the cache, and the rest from the towers."""

    def __init__(
        self,
        fingerprints: dict[Kind, Fingerprint],
        cache: VectorCache,
        submit: Submit,
        timeout: float,
        begun: Callable[[Job], bool] = _finished,
    ) -> None:
        self._fingerprints = fingerprints
        self._cache = cache
        self._submit = submit
        self._timeout = timeout
        self._begun = begun
        self._derived: dict[int, Fingerprint] = {}  # by patches asked for: a few thousand at most

    async def embed(self, items: Sequence[Item | ItemError], demand: Demand) -> Outcome:
        """A vector or an error for each item."""
        texts = [item for item in items if isinstance(item, Item) and item.kind == "text"]
        if len(texts) == len(items):  # most requests: no places to keep, no tasks to gather
            spent, fingerprint = Spent(), self._fingerprints["text"]
            if len(texts) <= FEW:
                keys = [key(fingerprint, "t", _content(text)) for text in texts]
            else:
                keys = await paced(lambda text: key(fingerprint, "t", _content(text)), texts)
            finding = self._find("text", texts, keys, demand, spent)
            return Outcome(finding if isinstance(finding, Found) else await finding, spent)
        found, spent = Found([None] * len(items), [State.BYPASS] * len(items)), Spent()
        places: dict[Kind, list[int]] = {kind: [] for kind in KINDS}
        for index, item in enumerate(items):
            if isinstance(item, Item):
                places[item.kind].append(index)
            else:
                found.values[index] = item
        work = [
            self._embed_kind(kind, [items[i] for i in indexes], indexes, demand, found, spent)  # type: ignore[misc]
            for kind, indexes in places.items()
            if indexes
        ]
        if len(work) == 1:
            await work[0]
        else:
            await asyncio.gather(*work)
        return Outcome(found, spent)

    async def _embed_kind(
        self,
        kind: Kind,
        items: list[Item],
        places: list[int],
        demand: Demand,
        found: Found,
        spent: Spent,
    ) -> None:
        keys = await _keys(self._fingerprint(kind, demand), kind, items)
        finding = self._find(kind, items, keys, demand, spent)
        found.fill(places, finding if isinstance(finding, Found) else await finding)

    def _find(
        self, kind: Kind, items: list[Item], keys: list[bytes], demand: Demand, spent: Spent
    ) -> Found | Awaitable[Found]:
        """What is in this process's memory at once, or all of it to be awaited.

        No coroutine of its own: each costs a hit in Redis something, each time it is resumed.
        """
        began = time.monotonic()
        found = self._cache.peek(keys, demand.read)
        if None in found.values:
            return self._resolve(kind, items, keys, found, demand, spent, began)
        spent.looked_up(began)
        return found

    async def _resolve(
        self,
        kind: Kind,
        items: list[Item],
        keys: list[bytes],
        found: Found,
        demand: Demand,
        spent: Spent,
        began: float,
    ) -> Found:
        """The rest from the cache's other tiers and the tower, with errors as item errors."""
        job: Job | None = None

        async def compute(positions: list[int]) -> Sequence[Entry | Exception]:
            nonlocal job
            deadline = spent.looked_up(began) + self._timeout
            payloads: list[Any] = [items[position].payload for position in positions]
            job = Job(payloads, demand.max_num_patches, deadline)
            asker = demand.asker()
            spent.whose = asker
            reply = await self._submit(kind, job, asker)
            spent.add(reply)
            return entries(reply)

        by_digest = [place for place, item in enumerate(items) if item.by_digest]
        await self._cache.resolve(
            keys,
            found,
            compute,
            lacking={place: DigestUnknown() for place in by_digest},
            read=demand.read,
            write=demand.write,
            leaving=demand.leaving,
            bulk=demand.bulk,
            begun=lambda: job is not None and self._begun(job),
        )
        if not found.flown:
            spent.looked_up(began)
            return found
        for place, value in enumerate(found.values):
            if not isinstance(value, Entry):
                found.values[place] = _fault(value)
        return found

    def _fingerprint(self, kind: Kind, demand: Demand) -> Fingerprint:
        if kind == "text" or not demand.max_num_patches:
            return self._fingerprints[kind]
        patches = demand.max_num_patches
        if patches not in self._derived:
            image = self._fingerprints["image"]
            self._derived[patches] = image.derive(max_num_patches=patches)
        return self._derived[patches]


def entries(reply: Reply) -> list[Entry | Exception]:
    """The rows of a reply, or the error that its worker named."""
    cut = set(reply.truncated)
    size = len(reply.vectors) // max(1, len(reply.tokens))
    return [
        ItemError.from_code(reply.errors[i])
        if i in reply.errors
        else Entry(reply.vectors[i * size : (i + 1) * size], tokens, i in cut)
        for i, tokens in enumerate(reply.tokens)
    ]


async def _keys(fingerprint: Fingerprint, kind: Kind, items: list[Item]) -> list[bytes]:
    """Cache keys; large images are hashed in a thread, so that the event loop stays free."""
    contents = [_content(item) for item in items]
    if kind == "text" or max(map(len, contents)) < ASIDE:
        return await paced(lambda content: _key(fingerprint, kind[0], content), contents)
    return [
        await key_aside(fingerprint, kind[0], content)
        if len(content) >= ASIDE
        else _key(fingerprint, kind[0], content)
        for content in contents
    ]


def _key(fingerprint: Fingerprint, kind: str, content: bytes) -> bytes:
    named = key_of if isinstance(content, Digest) else key
    return named(fingerprint, kind, content)


def _content(item: Item) -> bytes:
    return item.payload.encode() if isinstance(item.payload, str) else item.payload


def _fault(error: Exception | None) -> ItemError:
    """An error that is not an item's own is the server's: its text goes to the log."""
    if isinstance(error, ItemError):
        return error
    if isinstance(error, ServiceError):
        raise error
    log.error("an item was not computed", exc_info=error)
    return ItemInternal()
