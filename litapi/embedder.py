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

from cache import Entry, Fingerprint, Found, NegativeTier, State, VectorCache, key, key_aside
from cache.key import ASIDE
from litapi.errors import ItemError, ItemInternal, ServiceError
from litapi.messages import KINDS, Item, Job, Kind, Reply

log = logging.getLogger("siglit.embedder")

Submit = Callable[[Kind, Job], Awaitable[Reply]]


def _finished(job: Job) -> bool:
    """Whatever was sent is waited for, whoever leaves."""
    del job
    return True


@dataclass(slots=True)
class Demand:
    """How a request wants its items embedded."""

    max_num_patches: int = 0
    read: bool = True  # False: Cache-Control: no-cache
    write: bool = True  # False: Cache-Control: no-store
    leaving: Callable[[], Awaitable[Exception]] | None = None  # ends once the client has hung up


@dataclass(slots=True)
class Spent:
    """Seconds of one request by stage, the longest where two towers ran side by side."""

    cache: float = 0.0
    queue: float = 0.0
    decode: float = 0.0
    infer: float = 0.0

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
        return b"cache;dur=%.3f, queue;dur=%.3f, decode;dur=%.3f, infer;dur=%.3f" % (
            self.cache * 1e3,
            self.queue * 1e3,
            self.decode * 1e3,
            self.infer * 1e3,
        )


@dataclass(slots=True)
class Outcome:
    """What became of each item, in order."""

    found: list[Found]
    spent: Spent = field(default_factory=Spent)
    fetched: bool = False  # items came by URL: the same request may mean others the next time

    @property
    def faults(self) -> dict[int, ItemError]:
        """Index → error of the refused items."""
        return {
            i: one.value for i, one in enumerate(self.found) if isinstance(one.value, ItemError)
        }


@dataclass(frozen=True, slots=True)
class Submitter:
    """The way to the towers."""

    submit: Submit
    timeout: float  # seconds that an answer may take
    begun: Callable[[Job], bool]


@dataclass(slots=True)
class Errand:
    """Items of one request that may have to go to a tower; for a hit nobody ever runs it."""

    submitter: Submitter
    kind: Kind
    items: list[Item]
    demand: Demand
    spent: Spent
    since: float  # by time.monotonic
    job: Job | None = None

    async def run(self, positions: list[int]) -> Sequence[Entry | Exception]:
        """Send the items at some positions."""
        now = time.monotonic()
        self.spent.cache = max(self.spent.cache, now - self.since)
        payloads = [self.items[position].payload for position in positions]
        self.job = Job(payloads, self.demand.max_num_patches, now + self.submitter.timeout)  # type: ignore[arg-type]
        reply = await self.submitter.submit(self.kind, self.job)
        self.spent.add(reply)
        return entries(reply)

    def begun(self) -> bool:
        """Whether a worker has begun with what was sent."""
        return self.job is not None and self.submitter.begun(self.job)


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
        self._submitter = Submitter(submit, timeout, begun)
        self._negative = NegativeTier()
        self._derived: dict[int, Fingerprint] = {}  # by patches asked for: a few thousand at most

    async def embed(self, items: Sequence[Item | ItemError], demand: Demand) -> Outcome:
        """A vector or an error for each item."""
        texts = [item for item in items if isinstance(item, Item) and item.kind == "text"]
        if len(texts) == len(items):  # most requests: no places to keep, no tasks to gather
            outcome, fingerprint = Outcome([]), self._fingerprints["text"]
            keys = [key(fingerprint, "t", _content(text)) for text in texts]
            found = self._find("text", texts, keys, demand, outcome.spent)
            outcome.found = found if isinstance(found, list) else await found
            return outcome
        outcome = Outcome([_REFUSED] * len(items))
        places: dict[Kind, list[int]] = {kind: [] for kind in KINDS}
        for index, item in enumerate(items):
            if isinstance(item, Item):
                places[item.kind].append(index)
            else:
                outcome.found[index] = Found(item, State.BYPASS)
        work = [
            self._embed_kind(kind, [items[i] for i in indexes], indexes, demand, outcome)  # type: ignore[misc]
            for kind, indexes in places.items()
            if indexes
        ]
        if len(work) == 1:
            await work[0]
        else:
            await asyncio.gather(*work)
        return outcome

    async def _embed_kind(
        self, kind: Kind, items: list[Item], places: list[int], demand: Demand, outcome: Outcome
    ) -> None:
        keys = await _keys(self._fingerprint(kind, demand), kind, items)
        finding = self._find(kind, items, keys, demand, outcome.spent)
        found = finding if isinstance(finding, list) else await finding
        for place, one in zip(places, found, strict=True):
            outcome.found[place] = one

    def _find(
        self, kind: Kind, items: list[Item], keys: list[bytes], demand: Demand, spent: Spent
    ) -> list[Found] | Awaitable[list[Found]]:
        """What is in this process's memory at once, all the rest to be awaited.

        No coroutine of its own: each costs a hit in Redis something, each time it is resumed.
        """
        if not demand.read:
            return self._ask(kind, items, keys, demand, spent)
        began = time.monotonic()
        peeked = self._cache.peek(keys)
        if len(peeked) == len(keys):
            spent.cache = max(spent.cache, time.monotonic() - began)
            return [*peeked.values()]
        known = self._known_bad(keys)
        if known:
            return self._ask_rest({**known, **peeked}, kind, items, keys, demand, spent)
        return self._ask(kind, items, keys, demand, spent, peeked)

    async def _ask_rest(
        self,
        known: dict[int, Found],
        kind: Kind,
        items: list[Item],
        keys: list[bytes],
        demand: Demand,
        spent: Spent,
    ) -> list[Found]:
        rest = [i for i in range(len(keys)) if i not in known]
        wanted = [items[i] for i in rest], [keys[i] for i in rest]
        answers = await self._ask(kind, *wanted, demand, spent, {})
        known.update(zip(rest, answers, strict=True))
        return [known[i] for i in range(len(keys))]

    async def _ask(
        self,
        kind: Kind,
        items: list[Item],
        keys: list[bytes],
        demand: Demand,
        spent: Spent,
        peeked: dict[int, Found] | None = None,
    ) -> list[Found]:
        """What the cache has, and the towers' answers for the rest."""
        errand = Errand(self._submitter, kind, items, demand, spent, time.monotonic())
        answers = await self._cache.resolve(
            keys,
            errand.run,
            peeked=peeked,
            read=demand.read,
            write=demand.write,
            leaving=demand.leaving,
            begun=errand.begun,
        )
        for index, one in enumerate(answers):
            if not isinstance(one.value, Entry):
                answers[index] = _refused(one)
                if demand.write:
                    self._note_bad(keys[index], one)
        return answers

    def _known_bad(self, keys: list[bytes]) -> dict[int, Found]:
        if not len(self._negative):
            return {}
        codes = {i: self._negative.get(one) for i, one in enumerate(keys)}
        return {i: Found(ItemError.from_code(c), State.HIT_L1) for i, c in codes.items() if c}

    def _note_bad(self, one_key: bytes, found: Found) -> None:
        fault = found.value
        if isinstance(fault, ItemError) and fault.deterministic:
            self._negative.put(one_key, fault.code)

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
        return [key(fingerprint, kind[0], content) for content in contents]
    return [await key_aside(fingerprint, kind[0], content) for content in contents]


def _content(item: Item) -> bytes:
    return item.payload.encode() if isinstance(item.payload, str) else item.payload


def _refused(found: Found) -> Found:
    """An error that is not an item's own is the server's: its text goes to the log."""
    if isinstance(found.value, Entry | ItemError):
        return found
    if isinstance(found.value, ServiceError):
        raise found.value
    log.error("an item was not computed", exc_info=found.value)
    return Found(ItemInternal(), found.state)


_REFUSED = Found(ItemInternal(), State.BYPASS)
