"""Vectors by content: memory, what is known to be bad, Redis, and then the model, each asked once.

    peek ─► memory      resolve ─► negative ─► Redis ─► join, or one task: compute ─► keep, answer

`peek` is synchronous: a request that memory answers in full needs no task. `resolve` decides about
every miss. A look-up in Redis belongs to its caller; equal keys of one moment share one place in an
MGET. A key that is being computed is a `Flight`: everybody who wants the same key joins it.
`compute` runs in a task of its own, so a client that disconnects takes nothing from those who
joined. If all of them leave, a computation that a worker has begun still lands and is kept, and one
that has not begun is cancelled. Whoever joins a flight gets its vector or its exception.

read=False (no-cache) computes afresh: it neither looks up, nor joins, nor is joined; its state is
BYPASS, and its vector replaces the kept one. write=False (no-store) keeps nothing, unless another
request that does store joins the flight. A key twice in one request is computed once: it is MISS
for the first and JOIN for the others.

A vector of the wrong length or with a NaN is never kept or served: it becomes `Unsound`. Exceptions
are not kept, except those that call themselves `deterministic`, which the negative tier remembers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from functools import partial

from cache.codec import Corrupt, Entry, encode, opened, strays
from cache.memory import MemoryTier
from cache.negative import NegativeTier
from cache.redis.store import Lost, RedisStore, Reply
from cache.watcher import SILENT, Watcher

Compute = Callable[[list[int]], Awaitable[Sequence[Entry | Exception]]]
# A class and no instance: an exception that is raised out of a future that a frame of its traceback
# holds would wait for the collector, with all that the frames hold.
Leaving = Callable[[], asyncio.Future[type[Exception]]]


class State(StrEnum):
    HIT_L1 = "hit-l1"
    HIT_L2 = "hit-l2"
    JOIN = "join"
    MISS = "miss"
    BYPASS = "bypass"


L1, L2 = State.HIT_L1, State.HIT_L2  # a member of an enum takes three times as long to look up


class Found:
    """What became of each key, place by place; no value: not known yet.

    Columns, as a pair for each key costs a hit more than its look-up in memory does.
    """

    __slots__ = ("flown", "states", "values")

    def __init__(self, values: list[Entry | Exception | None], states: list[State]) -> None:
        self.values = values
        self.states = states
        self.flown = False  # whether any of it was computed, by this request or one it joined

    def __len__(self) -> int:
        return len(self.values)

    def missing(self) -> list[int]:
        """Places without a value."""
        return [place for place, value in enumerate(self.values) if value is None]

    def put(self, place: int, value: Entry | Exception, state: State) -> None:
        self.values[place] = value
        self.states[place] = state

    def fill(self, places: Sequence[int], rest: Found) -> None:
        """Take over what another look-up found for these places."""
        for place, value, state in zip(places, rest.values, rest.states, strict=True):
            self.values[place] = value
            self.states[place] = state


def _always() -> bool:
    return True


class Abandoned(Exception):
    """The computation was cancelled: the service is closing."""


class Unsound(Exception):
    """The computation gave something that is not a vector of this model."""


class Flight:
    """One key that is being computed. `position` is its index in the request that computes it."""

    __slots__ = ("batch", "keep", "key", "position", "state", "value", "waiters", "waiting")

    def __init__(self, key: bytes, position: int, keep: bool) -> None:
        self.key = key
        self.position = position
        self.keep = keep
        self.value: Entry | Exception | None = None
        self.state = State.MISS
        self.waiting = 1  # requests whose clients are still there
        self.batch: Batch | None = None
        self.waiters: list[asyncio.Future[None]] = []

    def land(self, value: Entry | Exception) -> None:
        self.value = value
        for waiter in self.waiters:
            _wake(waiter)


class Batch:
    """The flights that one call of `compute` brings, and the task that makes the call."""

    __slots__ = ("begun", "flights", "task")

    def __init__(self, flights: Sequence[Flight], begun: Callable[[], bool]) -> None:
        self.flights = flights
        self.begun = begun
        self.task: asyncio.Task[None] | None = None
        for flight in flights:
            flight.batch = self

    def pointless(self) -> bool:
        return not any(flight.waiting for flight in self.flights) and not self.begun()


# Of each key that a request waits for: its place in the request, its flight, whether it joined it.
Boarded = list[tuple[int, Flight, bool]]


class VectorCache:
    """For one event loop: `start` and `close` it there, once in each process."""

    def __init__(
        self,
        dim: int,
        memory: MemoryTier,
        store: RedisStore | None = None,
        watcher: Watcher = SILENT,
        secret: bytes = b"",
    ) -> None:
        self.dim = dim
        self._secret = secret  # of values in the store
        self.memory = memory
        self.store = store
        self._watcher = watcher
        self.negative = NegativeTier()
        self._flights: dict[bytes, Flight] = {}
        self._batches: set[Batch] = set()  # the event loop itself holds tasks only weakly

    @property
    def problems(self) -> list[str]:
        """Public sentences on why the store does not serve at present."""
        return self.store.trouble.sentences if self.store is not None else []

    async def start(self) -> None:
        if self.store is not None:
            await self.store.start()

    async def close(self, timeout: float = 1.0) -> None:
        """Let flights land and writes go out, each for at most `timeout`."""
        tasks = [batch.task for batch in self._batches if batch.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        if self.store is not None:
            await self.store.close(timeout)

    # ---- looking

    def peek(self, keys: Sequence[bytes], read: bool = True) -> Found:
        """What this process's memory has, without a task or an await; nothing for read=False."""
        if not read:
            self._watcher.looked_up("l1", "bypass", len(keys))
            return Found([None] * len(keys), [L1] * len(keys))
        values: list[Entry | Exception | None] = [*map(self.memory.get, keys)]
        missed = values.count(None)
        if missed < len(values):
            self._watcher.looked_up("l1", "hit", len(values) - missed)
        if missed:
            self._watcher.looked_up("l1", "miss", missed)
        return Found(values, [L1] * len(values))

    async def resolve(
        self,
        keys: Sequence[bytes],
        found: Found,
        compute: Compute,
        *,
        read: bool = True,
        write: bool = True,
        leaving: Leaving | None = None,
        begun: Callable[[], bool] = _always,
    ) -> Found:
        """`found` of a moment ago, with a value and a state in every place that it lacked.

        `compute` is called at most once, with the positions of the unique keys that are neither
        known nor under way. If it raises, each of those positions gets what it raised. `leaving`
        is called only when something is computed: its future is done once the caller's client has
        left, and the exception that it holds is raised. `begun` says whether a worker has begun
        the computation; when all clients have left and none has, it is cancelled.
        """
        if read:
            if len(self.negative):
                self._recall(keys, found)
            if self.store is not None and None in found.values:
                places, asked = self._unasked(keys, found)
                self._take_in(places, asked, await self.store.get(asked), found, write)
        if None in found.values:
            found.flown = True
            boarded = self._board(keys, found, read, write)
            await self._fly(boarded, compute, State.MISS if read else State.BYPASS, leaving, begun)
            for place, flight, joined in boarded:
                value = flight.value or Abandoned("the flight did not land")
                found.put(place, value, State.JOIN if joined else flight.state)
        return found

    # ---- looking

    def _recall(self, keys: Sequence[bytes], found: Found) -> None:
        """Put the errors of content that is known to be bad into their places."""
        for place in found.missing():
            error = self.negative.get(keys[place])
            if error is not None:
                found.put(place, error, L1)

    def _unasked(self, keys: Sequence[bytes], found: Found) -> tuple[list[int], list[bytes]]:
        """Places without a value, and their keys, except for keys under way."""
        places = found.missing()
        if self._flights:
            places = [place for place in places if keys[place] not in self._flights]
        return places, [keys[place] for place in places]

    def _take_in(
        self,
        places: Sequence[int],
        asked: Sequence[bytes],
        replies: Sequence[Reply],
        found: Found,
        write: bool,
    ) -> None:
        """Put what Redis has into its places. A vector that has not unit length is corrupt."""
        openings = [*map(self._opened, asked, replies)]
        entries = [one for one in openings if not isinstance(one, str)]
        if entries and (bad := strays(entries, self.dim)):
            whole = [place for place, one in enumerate(openings) if not isinstance(one, str)]
            for place in bad:
                openings[whole[place]] = "corrupt"
        lacks = list[str]()
        for place, key, one in zip(places, asked, openings, strict=True):
            if isinstance(one, str):
                lacks.append(one)
            else:
                found.put(place, one, L2)
                if write:
                    self._remember(key, one)
        if len(lacks) < len(asked):
            self._watcher.looked_up("redis", "hit", len(asked) - len(lacks))
        for lack in {*lacks}:
            self._watcher.looked_up("redis", lack, lacks.count(lack))

    def _opened(self, key: bytes, reply: Reply) -> Entry | str:
        """The entry, or what there is in place of a sound one."""
        if reply is None:
            return "miss"
        if isinstance(reply, Lost):
            return str(reply.value)
        try:
            return opened(key, reply, self.dim, self._secret)
        except Corrupt:
            return "corrupt"

    # ---- computing

    def _board(self, keys: Sequence[bytes], found: Found, read: bool, write: bool) -> Boarded:
        """A flight for each key that was not found: one under way, or a new one.

        A flight that was under way a moment ago may have landed in memory since.
        """
        under_way = self._flights if read else {}
        boarded: Boarded = []
        for place in found.missing():
            entry = self.memory.get(keys[place]) if read else None
            if entry is not None:
                found.put(place, entry, L1)
            else:
                boarded.append((place, *_boarded(place, keys[place], under_way, write)))
        return boarded

    async def _fly(
        self,
        boarded: Boarded,
        compute: Compute,
        state: State,
        leaving: Leaving | None,
        begun: Callable[[], bool],
    ) -> None:
        """Return when all flights have landed."""
        new = [flight for _, flight, joined in boarded if not joined]
        if len(new) < len(boarded):
            self._watcher.looked_up("flight", "join", len(boarded) - len(new))
        if new:
            batch = Batch(new, begun)
            self._batches.add(batch)
            batch.task = asyncio.create_task(self._compute(new, compute, state))
            batch.task.add_done_callback(partial(self._arrived, batch))
        try:
            await _landing(boarded, leaving)
        except BaseException:
            self._leave(boarded)
            raise

    def _leave(self, boarded: Boarded) -> None:
        """A client has left; cancel what nobody waits for any more."""
        for _, flight, _ in boarded:
            flight.waiting -= 1
        for batch in {flight.batch for _, flight, _ in boarded if flight.value is None}:
            if batch in self._batches and batch.task is not None and batch.pointless():
                for flight in batch.flights:
                    self._forget(flight)
                batch.task.cancel()

    def _arrived(self, batch: Batch, task: asyncio.Task[None]) -> None:
        """Nobody waits for ever: flights of a cancelled or broken task land here."""
        del task
        self._batches.discard(batch)
        batch.task = None
        for flight in batch.flights:
            flight.batch = None  # or both, and the job behind `begun`, would wait for the collector
            if flight.value is None:
                self._land(flight, Abandoned("the computation was cancelled"))

    async def _compute(self, flights: Sequence[Flight], compute: Compute, state: State) -> None:
        values: Sequence[Entry | Exception]
        try:
            values = await compute([flight.position for flight in flights])
            if len(values) != len(flights):
                raise Unsound(f"{len(values)} vectors for {len(flights)} items")
        except Exception as error:
            values = [error] * len(flights)
        for flight, value in zip(flights, values, strict=True):
            flight.state = state
            self._land(flight, self._kept(flight, value))

    def _kept(self, flight: Flight, entry: Entry | Exception) -> Entry | Exception:
        if isinstance(entry, Exception):
            if flight.keep and getattr(entry, "deterministic", False):
                self.negative.put(flight.key, type(entry))
            return entry
        if not entry.sound(self.dim):
            return Unsound(f"not {self.dim} finite numbers")
        if flight.keep:
            self._remember(flight.key, entry)
            if self.store is not None:
                self.store.put(flight.key, encode(flight.key, entry, self._secret))
        return entry

    def _remember(self, key: bytes, entry: Entry) -> None:
        if self.memory.limit:
            evicted = self.memory.put(key, entry)
            if evicted:
                self._watcher.evicted(evicted)
            self._watcher.bytes("l1", self.memory.bytes)

    def _land(self, flight: Flight, value: Entry | Exception) -> None:
        self._forget(flight)
        flight.land(value)

    def _forget(self, flight: Flight) -> None:
        """Nobody can join it any more."""
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]


def _boarded(
    position: int, key: bytes, under_way: dict[bytes, Flight], write: bool
) -> tuple[Flight, bool]:
    flight = under_way.get(key)
    if flight is None:
        flight = under_way[key] = Flight(key, position, write)
        return flight, False
    flight.keep |= write
    flight.waiting += 1
    return flight, True


async def _landing(boarded: Boarded, leaving: Leaving | None) -> None:
    """Return when all have landed. Each caller waits on futures of its own, so a caller that is
    cancelled there does not cancel what others wait for.
    """
    left = None
    try:
        for _, flight, _ in boarded:
            while flight.value is None:
                if left is None and leaving is not None:
                    left = leaving()
                await _next(flight, left)
    finally:
        if left is not None:
            left.cancel()


async def _next(flight: Flight, left: asyncio.Future[type[Exception]] | None) -> None:
    waiter = asyncio.get_running_loop().create_future()
    flight.waiters.append(waiter)
    if left is None:
        await waiter
        return
    wake = partial(_wake, waiter)
    left.add_done_callback(wake)
    await waiter
    if flight.value is None and left.done():
        raise left.result()
    left.remove_done_callback(wake)


def _wake(waiter: asyncio.Future[None], _: object = None) -> None:
    if not waiter.done():
        waiter.set_result(None)
