"""Items → vectors: key, look up, join, dispatch. The way of every embedding request.

Text and image go their ways side by side; each tower gets at most one job for a request, holding
just what the cache did not know.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from cache import Entry, Fingerprint, Found, State, VectorCache, key
from cache.key import ASIDE, Field, key_of
from cache.tiers import Leaving
from litapi.errors import DigestUnknown, ItemError, ItemInternal, ServiceError
from litapi.http.pace import paced
from litapi.messages import KINDS, Digest, Item, Job, Kind, Reply
from litapi.transport.client import ANYONE, Asker

log = logging.getLogger("siglit.embedder")

CUT = attrgetter("truncated")
NO_WORK = b"cache;dur=%d.%03d, queue;dur=0.000, decode;dur=0.000, infer;dur=0.000"
TIMING = b"cache;dur=%.3f, queue;dur=%.3f%b, decode;dur=%.3f, infer;dur=%.3f"

Submit = Callable[[Kind, Job, Asker], Awaitable[Reply]]


@dataclass(slots=True)
class Query:
    """How a request wants its items embedded, and what became of them.

    `found` has a vector or an error for each item, in order; `entries` are the vectors among it,
    and `cut` the places of texts that were too long for the model. Seconds are by stage, the
    longest where two towers ran side by side.
    """

    max_num_patches: int = 0
    ending: bool = False  # of a text that is too long, the last tokens are kept
    read: bool = True  # False: Cache-Control: no-cache
    write: bool = True  # False: Cache-Control: no-store
    leaving: Leaving | None = None  # its future is done once the client hung up
    bulk: bool = False
    asker: Callable[[], Asker] = lambda: ANYONE  # asked only when something is computed
    fetched: bool = False  # by URL, so that the same request may mean others the next time
    found: Found = field(default_factory=lambda: Found([], []))
    entries: list[Entry] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    cache: float = 0.0
    queue: float = 0.0
    decode: float = 0.0
    infer: float = 0.0
    whose: Asker = ANYONE

    def answered(self, found: Found) -> Query:
        self.found = found
        self.entries = [one for one in found.values if isinstance(one, Entry)]
        if any(map(CUT, self.entries)):
            values = enumerate(found.values)
            self.cut = [i for i, one in values if isinstance(one, Entry) and one.truncated]
        return self

    @property
    def faults(self) -> dict[int, ItemError]:
        return {i: one for i, one in enumerate(self.found.values) if isinstance(one, ItemError)}

    def looked_up(self, began: float) -> float:
        now = time.monotonic()
        self.cache = max(self.cache, now - began)
        return now

    def add(self, reply: Reply) -> None:
        self.queue = max(self.queue, reply.queue_seconds)
        self.decode = max(self.decode, reply.decode_seconds)
        self.infer = max(self.infer, reply.infer_seconds)

    def timing(self) -> bytes:
        if not (self.queue or self.decode or self.infer):  # formatting floats takes its time
            return NO_WORK % divmod(int(self.cache * 1e6), 1000)
        before, after = (self.cache * 1e3, self.queue * 1e3), (self.decode * 1e3, self.infer * 1e3)
        return TIMING % (*before, self.whose.described, *after)


@dataclass(slots=True)
class Embedder:
    """Answers items from the cache, and the rest from the towers."""

    fingerprints: dict[Kind, Fingerprint]
    cache: VectorCache
    submit: Submit
    timeout: float
    begun: Callable[[Job], bool] = lambda _: True  # each job is computed to its end
    # by patches asked for, a few thousand at most, and by the end at which texts are cut
    derived: dict[int | str, Fingerprint] = field(default_factory=dict)

    async def embed(self, items: Sequence[Item | ItemError], query: Query) -> Query:
        kinds = {item.kind if isinstance(item, Item) else None for item in items}
        if len(kinds) == 1 and (kind := kinds.pop()):  # most requests: no tasks to gather
            return query.answered(await self._find(kind, items, query))  # type: ignore[arg-type]
        refused = [item if isinstance(item, ItemError) else None for item in items]
        found = Found([*refused], [State.BYPASS] * len(items))

        async def fill(kind: Kind) -> None:
            mine = [(at, i) for at, i in enumerate(items) if isinstance(i, Item) and i.kind == kind]
            if mine:
                places, some = zip(*mine, strict=True)
                found.fill(places, await self._find(kind, some, query))

        await asyncio.gather(*map(fill, KINDS))
        return query.answered(found)

    async def _find(self, kind: Kind, items: Sequence[Item], query: Query) -> Found:
        keys = await _keys(self._fingerprint(kind, query), kind, items)
        began = time.monotonic()
        found = self.cache.peek(keys, query.read)
        if None in found.values:
            await self._resolve(kind, items, keys, found, query, began)
        else:
            query.looked_up(began)
        return found

    async def _resolve(
        self,
        kind: Kind,
        items: Sequence[Item],
        keys: list[bytes],
        found: Found,
        query: Query,
        began: float,
    ) -> None:
        job: Job | None = None

        async def compute(positions: list[int]) -> Sequence[Entry | Exception]:
            nonlocal job
            deadline = query.looked_up(began) + self.timeout
            payloads: list[Any] = [items[position].payload for position in positions]
            job = Job(payloads, query.max_num_patches, deadline, ending=query.ending)
            query.whose = query.asker()
            reply = await self.submit(kind, job, query.whose)
            query.add(reply)
            return entries(reply)

        await self.cache.resolve(
            keys,
            found,
            compute,
            read=query.read,
            write=query.write,
            leaving=query.leaving,
            bulk=query.bulk,
            begun=lambda: job is not None and self.begun(job),
            lacking={at: DigestUnknown() for at, item in enumerate(items) if item.by_digest},
        )
        if found.flown:
            found.values = [one if isinstance(one, Entry) else _fault(one) for one in found.values]
        else:
            query.looked_up(began)

    def _fingerprint(self, kind: Kind, query: Query) -> Fingerprint:
        print_ = self.fingerprints[kind]
        if kind == "image":
            patches = query.max_num_patches
            return self._derive(patches, print_, max_num_patches=patches) if patches else print_
        return self._derive("start", print_, cut="start") if query.ending else print_

    def _derive(self, name: int | str, print_: Fingerprint, **how: Field) -> Fingerprint:
        if name not in self.derived:
            self.derived[name] = print_.derive(**how)
        return self.derived[name]


def entries(reply: Reply) -> list[Entry | Exception]:
    cut = set(reply.truncated)
    size = len(reply.vectors) // max(1, len(reply.tokens))
    return [
        ItemError.from_code(reply.errors[i])
        if i in reply.errors
        else Entry(reply.vectors[i * size : (i + 1) * size], tokens, i in cut)
        for i, tokens in enumerate(reply.tokens)
    ]


async def _keys(fingerprint: Fingerprint, kind: Kind, items: Sequence[Item]) -> list[bytes]:
    """Cache keys; large contents are hashed in a thread, so that the event loop stays free."""

    letter = kind[0]

    def name(item: Item) -> bytes:
        content = item.payload
        if isinstance(content, str):
            return key(fingerprint, letter, content.encode())
        named = key_of if isinstance(content, Digest) else key
        return named(fingerprint, letter, content)

    if kind == "text" or max(len(item.payload) for item in items) < ASIDE:
        return await paced(name, items)
    return [
        await asyncio.to_thread(name, item) if len(item.payload) >= ASIDE else name(item)
        for item in items
    ]


def _fault(error: Exception | None) -> ItemError:
    """An error that is not an item's own is the server's: its text goes to the log."""
    if isinstance(error, ItemError):
        return error
    if isinstance(error, ServiceError):
        raise error
    log.error("an item was not computed", exc_info=error)
    return ItemInternal()
