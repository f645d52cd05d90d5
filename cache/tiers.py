"""Vectors by content: the process's own memory, then Redis, then the model, each asked only once.

    resolve ─► L1 ─► Redis, but for what is under way ─► join, or one task: compute ─► keep, answer

A look-up is its caller's own; equal ones of one moment share their place in the store's question.
A key that is computed is a `Flight`: everybody who wants the same key meanwhile waits for the same
one. `compute` runs in a task of its own, so a client that disconnects takes nothing from those who
joined. If all of them leave, what has begun still lands and is kept, as the client that asks again
finds it done; what has not begun is given up at once, and whoever comes next starts afresh. Whoever
joins a flight shares its end: the vector, or the exception. Exceptions are never kept.

read=False (no-cache) computes afresh: it neither looks up, nor joins, nor is joined; its state is
BYPASS, and what it computed replaces what was kept. write=False (no-store) keeps nothing, unless
another request that does store joins it. A key twice in one request is computed once. What was
computed is MISS for the first and JOIN for the others.

A vector of the wrong length or with a NaN in it is never kept or served: it becomes `Unsound`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from enum import StrEnum
from functools import partial
from typing import NamedTuple

from cache.codec import Corrupt, Entry, decode, encode
from cache.memory import MemoryTier
from cache.redis.store import Lost, RedisStore, Reply
from cache.watcher import SILENT, Watcher

Compute = Callable[[list[int]], Awaitable[Sequence[Entry | Exception]]]
Leaving = Callable[[], asyncio.Future[Exception]]


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

    __slots__ = ("states", "values")

    def __init__(self, values: list[Entry | Exception | None], states: list[State]) -> None:
        self.values = values
        self.states = states

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


class End(NamedTuple):
    """What became of one key that was computed."""

    value: Entry | Exception
    state: State


class Abandoned(Exception):
    """The computation was cancelled: the service is closing."""


def _always() -> bool:
    return True


class Unsound(Exception):
    """The computation gave something that is not a vector of this model."""


IN_THE_AIR = End(Abandoned("the flight did not land"), State.MISS)


class Flight:
    """One key that is computed, and its place in the request that set it off."""

    __slots__ = ("end", "keep", "key", "position", "task", "waiters", "waiting")

    def __init__(self, key: bytes, position: int, keep: bool) -> None:
        self.key = key
        self.position = position
        self.keep = keep
        self.end: End | None = None
        self.waiting = 1  # legs of requests whose clients are still there
        self.task: asyncio.Task[None] | None = None  # that brings it
        self.waiters: list[asyncio.Future[None]] = []

    def land(self, end: End) -> None:
        self.end = end
        for waiter in self.waiters:
            _wake(waiter)

    def end_for(self, joined: bool) -> End:
        """What it is for one who waited."""
        end = self.end or IN_THE_AIR
        return End(end.value, State.JOIN) if joined else end


Leg = tuple[int, Flight, bool]  # a place in a request, what will bring it, whether that is joined


class Trip(NamedTuple):
    """What one task brings, and whether that is past giving up."""

    flights: Sequence[Flight]
    begun: Callable[[], bool]

    def pointless(self) -> bool:
        return not any(flight.waiting for flight in self.flights) and not self.begun()


class VectorCache:
    """For one event loop: `start` and `close` it there, once in each process."""

    def __init__(
        self,
        dim: int,
        memory: MemoryTier,
        store: RedisStore | None = None,
        watcher: Watcher = SILENT,
    ) -> None:
        self.dim = dim
        self.memory = memory
        self.store = store
        self._watcher = watcher
        self._flights: dict[bytes, Flight] = {}
        self._tasks: dict[asyncio.Task[None], Trip] = {}

    async def start(self) -> None:
        if self.store is not None:
            await self.store.start()

    async def close(self, timeout: float = 1.0) -> None:
        """Let flights land and writes go out, each for at most `timeout`."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        if self.store is not None:
            await self.store.close(timeout)

    # ---- looking

    def peek(self, keys: Sequence[bytes]) -> Found:
        """What this process's memory has: no task and no await."""
        values: list[Entry | Exception | None] = [*map(self.memory.get, keys)]
        missed = values.count(None)
        if missed < len(values):
            self._watcher.looked_up("l1", "hit", len(values) - missed)
        if missed:
            self._watcher.looked_up("l1", "miss", missed)
        return Found(values, [L1] * len(values))

    async def look_up(self, keys: Sequence[bytes], found: Found, write: bool = True) -> None:
        """Put what Redis has into the places that `found` lacks, but for what is under way."""
        if self.store is None:
            return
        places = found.missing()
        if self._flights:
            places = [place for place in places if keys[place] not in self._flights]
        asked = [keys[place] for place in places]
        replies, lacks = await self.store.get(asked), list[str]()
        for place, key, reply in zip(places, asked, replies, strict=True):
            opened = self._opened(key, reply)
            if isinstance(opened, str):
                lacks.append(opened)
            else:
                found.put(place, opened, L2)
                if write:
                    self._remember(key, opened)
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
            return decode(key, reply, self.dim)
        except Corrupt:
            return "corrupt"

    # ---- computing

    async def resolve(
        self,
        keys: Sequence[bytes],
        compute: Compute,
        *,
        found: Found | None = None,
        read: bool = True,
        write: bool = True,
        leaving: Leaving | None = None,
        begun: Callable[[], bool] = _always,
    ) -> Found:
        """A value and its state for each key. `found` is what was looked up a moment ago, if it
        was; then this computes the rest and puts it there.

        `compute` is called at most once, with the positions of the unique keys that are neither
        found nor under way. If it raises, each of those positions gets what it raised. `leaving`
        is called only when something is computed: its future is done once the caller's client has
        left, and what it holds is raised; nothing else is, but the caller's own cancellation.
        `begun` says whether `compute` is past giving up; when all clients have left and it is not,
        it is cancelled.
        """
        if not read:
            found = Found([None] * len(keys), [L1] * len(keys))
            self._watcher.looked_up("l1", "bypass", len(keys))
        elif found is None:
            found = self.peek(keys)
            await self.look_up(keys, found, write)
        if None in found.values:
            legs = self._board(keys, found, read, write)
            await self._fly(legs, compute, State.MISS if read else State.BYPASS, leaving, begun)
            for place, flight, joined in legs:
                found.put(place, *flight.end_for(joined))
        return found

    # ---- flying

    def _board(self, keys: Sequence[bytes], found: Found, read: bool, write: bool) -> list[Leg]:
        """A place for each key that was not found, on a flight under way or on a new one.

        One that was under way a moment ago may have landed in memory since.
        """
        under_way = self._flights if read else {}
        legs = []
        for place in found.missing():
            entry = self.memory.get(keys[place]) if read else None
            if entry is not None:
                found.put(place, entry, L1)
            else:
                legs.append(_leg(place, keys[place], under_way, write))
        return legs

    async def _fly(
        self,
        legs: list[Leg],
        compute: Compute,
        state: State,
        leaving: Leaving | None,
        begun: Callable[[], bool],
    ) -> None:
        """Until all have landed."""
        new = [flight for _, flight, joined in legs if not joined]
        if len(new) < len(legs):
            self._watcher.looked_up("flight", "join", len(legs) - len(new))
        if new:
            self._take_off(self._compute(new, compute, state), Trip(new, begun))
        try:
            await _landing(legs, leaving)
        except BaseException:
            self._leave(legs)
            raise

    def _take_off(self, work: Coroutine[None, None, None], trip: Trip) -> None:
        task = asyncio.create_task(work)
        self._tasks[task] = trip  # the loop itself holds tasks only weakly
        for flight in trip.flights:
            flight.task = task
        task.add_done_callback(self._arrived)

    def _leave(self, legs: Sequence[Leg]) -> None:
        """A client has left; what nobody waits for any more is given up."""
        for _, flight, _ in legs:
            flight.waiting -= 1
        for task in {flight.task for _, flight, _ in legs if flight.end is None}:
            if task in self._tasks and self._tasks[task].pointless():
                for flight in self._tasks[task].flights:
                    self._forget(flight)
                task.cancel()

    def _arrived(self, task: asyncio.Task[None]) -> None:
        """Nobody waits for ever: what a cancelled or broken task left in the air lands here."""
        for flight in self._tasks.pop(task).flights:
            if flight.end is None:
                self._land(flight, End(Abandoned("the computation was cancelled"), State.MISS))

    async def _compute(self, flights: Sequence[Flight], compute: Compute, state: State) -> None:
        values: Sequence[Entry | Exception]
        try:
            values = await compute([flight.position for flight in flights])
            if len(values) != len(flights):
                raise Unsound(f"{len(values)} vectors for {len(flights)} items")
        except Exception as error:
            values = [error] * len(flights)
        for flight, value in zip(flights, values, strict=True):
            self._land(flight, End(self._kept(flight, value), state))

    def _kept(self, flight: Flight, entry: Entry | Exception) -> Entry | Exception:
        if isinstance(entry, Exception):
            return entry
        if not entry.sound(self.dim):
            return Unsound(f"not {self.dim} finite numbers")
        if flight.keep:
            self._remember(flight.key, entry)
            if self.store is not None:
                self.store.put(flight.key, encode(flight.key, entry))
        return entry

    def _remember(self, key: bytes, entry: Entry) -> None:
        if self.memory.limit:
            evicted = self.memory.put(key, entry)
            if evicted:
                self._watcher.evicted(evicted)
            self._watcher.bytes("l1", self.memory.bytes)

    def _land(self, flight: Flight, end: End) -> None:
        self._forget(flight)
        flight.land(end)

    def _forget(self, flight: Flight) -> None:
        """Nobody can join it any more."""
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]


def _leg(position: int, key: bytes, under_way: dict[bytes, Flight], write: bool) -> Leg:
    flight = under_way.get(key)
    if flight is None:
        flight = under_way[key] = Flight(key, position, write)
        return position, flight, False
    flight.keep |= write
    flight.waiting += 1
    return position, flight, True


async def _landing(legs: Sequence[Leg], leaving: Leaving | None) -> None:
    """Until all have landed; each caller waits on futures of its own, so that one who is cancelled
    there does not cancel what others wait for.
    """
    left = None
    try:
        for _, flight, _ in legs:
            while flight.end is None:
                if left is None and leaving is not None:
                    left = leaving()
                await _next(flight, left)
    finally:
        if left is not None:
            left.cancel()


async def _next(flight: Flight, left: asyncio.Future[Exception] | None) -> None:
    waiter = asyncio.get_running_loop().create_future()
    flight.waiters.append(waiter)
    if left is None:
        await waiter
        return
    wake = partial(_wake, waiter)
    left.add_done_callback(wake)
    await waiter
    if flight.end is None and left.done():
        raise left.result()
    left.remove_done_callback(wake)


def _wake(waiter: asyncio.Future[None], _: object = None) -> None:
    if not waiter.done():
        waiter.set_result(None)
