"""Vectors by content: the process's own memory, then Redis, then the model, each asked only once.

    resolve ─► L1 ─► already under way? join it ─► new: Redis ─► one task ─► compute ─► keep, answer

A key under way is a `Flight`: everybody who wants the same key meanwhile waits for the same one,
look-up and computation both. `compute` runs in a task of its own, so a client that disconnects
takes nothing from those who joined. If all of them leave, what has begun still lands and is kept,
as the client that asks again finds it done; what has not begun is given up at once, and whoever
comes next starts afresh. Whoever joins a flight shares its end: the vector, or the exception.
Exceptions are never kept.

read=False (no-cache) computes afresh: it neither looks up, nor joins, nor is joined; its state is
BYPASS, and what it computed replaces what was kept. write=False (no-store) keeps nothing, unless
another request that does store joins it. A key twice in one request is computed once. A flight
that Redis answered is HIT_L2 for all who waited; one that was computed is MISS for the first and
JOIN for the others.

A vector of the wrong length or with a NaN in it is never kept or served: it becomes `Unsound`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from cache.codec import Corrupt, Entry, decode, encode
from cache.memory import MemoryTier
from cache.store import Lost, RedisStore, Reply
from cache.watcher import SILENT, Watcher

Compute = Callable[[list[int]], Awaitable[Sequence[Entry | Exception]]]
Leaving = Callable[[], Awaitable[Exception]]


class State(StrEnum):
    HIT_L1 = "hit-l1"
    HIT_L2 = "hit-l2"
    JOIN = "join"
    MISS = "miss"
    BYPASS = "bypass"


@dataclass(frozen=True, slots=True)
class Found:
    value: Entry | Exception
    state: State


class Abandoned(Exception):
    """The computation was cancelled: the service is closing."""


def _always() -> bool:
    return True


class Unsound(Exception):
    """The computation gave something that is not a vector of this model."""


class Flight:
    """One key under way. Its future is made once somebody has to wait: a Redis hit needs none."""

    __slots__ = ("_landed", "found", "keep", "task", "waiting")

    def __init__(self, keep: bool) -> None:
        self.found: Found | None = None
        self.keep = keep
        self.waiting = 0  # legs of requests whose clients are still there
        self.task: asyncio.Task[None] | None = None  # that brings it
        self._landed: asyncio.Future[None] | None = None

    def landed(self) -> asyncio.Future[None]:
        if self._landed is None:
            self._landed = asyncio.get_running_loop().create_future()
        return self._landed

    def land(self, found: Found) -> None:
        self.found = found
        if self._landed is not None and not self._landed.done():
            self._landed.set_result(None)


class Leg(NamedTuple):
    """A key of a request that memory did not have, and the flight that will bring it."""

    position: int
    key: bytes
    flight: Flight
    joined: bool

    def end(self) -> Found:
        found = self.flight.found or Found(Abandoned("the flight did not land"), State.MISS)
        if self.joined and found.state is not State.HIT_L2:
            return Found(found.value, State.JOIN)
        return found


class Trip(NamedTuple):
    """What one task brings, and whether that is past giving up."""

    legs: Sequence[Leg]
    begun: Callable[[], bool]

    def pointless(self) -> bool:
        return not any(leg.flight.waiting for leg in self.legs) and not self.begun()


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

    def peek(self, keys: Sequence[bytes]) -> list[Found] | None:
        """All from this process's memory, or nothing: no task and no await."""
        found = []
        for key in keys:
            entry = self.memory.get(key)
            if entry is None:
                return None
            found.append(Found(entry, State.HIT_L1))
        self._watcher.looked_up("l1", "hit", len(found))
        return found

    async def resolve(
        self,
        keys: Sequence[bytes],
        compute: Compute,
        *,
        read: bool = True,
        write: bool = True,
        leaving: Leaving | None = None,
        begun: Callable[[], bool] = _always,
    ) -> list[Found]:
        """One `Found` for each key, in order.

        `compute` is called at most once, with the positions of the unique keys that are neither
        found nor under way. If it raises, each of those positions gets what it raised. `leaving`
        is awaited only while something is computed: it ends once the caller's client has left, and
        what it gives is raised; nothing else is, but the caller's own cancellation. `begun` says
        whether `compute` is past giving up; when all clients have left and it is not, it is
        cancelled.
        """
        found: dict[int, Found] = {}
        legs: list[Leg] = []
        under_way = self._flights if read else {}
        for position, key in enumerate(keys):
            entry = self.memory.get(key) if read else None
            if entry is None:
                legs.append(_board(position, key, under_way, write))
            else:
                found[position] = Found(entry, State.HIT_L1)
        self._report(len(found), legs, read)
        if legs:
            try:
                await self._bring([leg for leg in legs if not leg.joined], compute, read, begun)
                await _landing(legs, leaving)
            except BaseException:
                self._leave(legs)
                raise
            found.update((leg.position, leg.end()) for leg in legs)
        return [found[position] for position in range(len(keys))]

    def _report(self, hits: int, legs: Sequence[Leg], read: bool) -> None:
        if hits:
            self._watcher.looked_up("l1", "hit", hits)
        if legs:
            self._watcher.looked_up("l1", "miss" if read else "bypass", len(legs))
            joined = sum(leg.joined for leg in legs)
            if joined:
                self._watcher.looked_up("flight", "join", joined)

    # ---- flying

    async def _bring(
        self, legs: list[Leg], compute: Compute, read: bool, begun: Callable[[], bool]
    ) -> None:
        """Ask Redis in the caller's own time, as most look-ups end there; leave the rest to a task.

        A caller that is cancelled meanwhile hands over to a task too: others may have joined.
        """
        missing = legs
        if read and legs and self.store is not None:
            try:
                missing = await self._look_in_redis(legs, self.store)
            except BaseException:
                self._take_off(self._fly(legs, compute, self.store), Trip(legs, begun))
                raise
        if missing:
            state = State.MISS if read else State.BYPASS
            self._take_off(self._compute(missing, compute, state), Trip(missing, begun))

    def _take_off(self, work: Coroutine[None, None, None], trip: Trip) -> None:
        task = asyncio.create_task(work)
        self._tasks[task] = trip  # the loop itself holds tasks only weakly
        for leg in trip.legs:
            leg.flight.task = task
        task.add_done_callback(self._arrived)

    def _leave(self, legs: Sequence[Leg]) -> None:
        """A client has left; what nobody waits for any more is given up."""
        for leg in legs:
            leg.flight.waiting -= 1
        for task in {leg.flight.task for leg in legs if leg.flight.found is None}:
            if task in self._tasks and self._tasks[task].pointless():
                for leg in self._tasks[task].legs:
                    self._forget(leg)
                task.cancel()

    def _arrived(self, task: asyncio.Task[None]) -> None:
        """Nobody waits for ever: what a cancelled or broken task left in the air lands here."""
        for leg in self._tasks.pop(task).legs:
            if leg.flight.found is None:
                self._land(leg, Found(Abandoned("the computation was cancelled"), State.MISS))

    async def _fly(self, legs: list[Leg], compute: Compute, store: RedisStore) -> None:
        missing = await self._look_in_redis(legs, store)
        if missing:
            await self._compute(missing, compute, State.MISS)

    async def _look_in_redis(self, legs: list[Leg], store: RedisStore) -> list[Leg]:
        """Land what Redis has and return the rest."""
        missing = []
        results: dict[str, int] = {}
        for leg, reply in zip(legs, await store.get([leg.key for leg in legs]), strict=True):
            entry, result = self._open(leg.key, reply)
            results[result] = results.get(result, 0) + 1
            if entry is None:
                missing.append(leg)
                continue
            self._remember(leg, entry)
            self._land(leg, Found(entry, State.HIT_L2))
        for result, n in results.items():
            self._watcher.looked_up("redis", result, n)
        return missing

    def _open(self, key: bytes, reply: Reply) -> tuple[Entry | None, str]:
        if reply is None:
            return None, "miss"
        if isinstance(reply, Lost):
            return None, reply.value
        try:
            return decode(key, reply, self.dim), "hit"
        except Corrupt:
            return None, "corrupt"

    async def _compute(self, legs: list[Leg], compute: Compute, state: State) -> None:
        values: Sequence[Entry | Exception]
        try:
            values = await compute([leg.position for leg in legs])
            if len(values) != len(legs):
                raise Unsound(f"{len(values)} vectors for {len(legs)} items")
        except Exception as error:
            values = [error] * len(legs)
        for leg, value in zip(legs, values, strict=True):
            self._land(leg, Found(self._kept(leg, value), state))

    def _kept(self, leg: Leg, entry: Entry | Exception) -> Entry | Exception:
        if isinstance(entry, Exception):
            return entry
        if not entry.sound(self.dim):
            return Unsound(f"not {self.dim} finite numbers")
        self._remember(leg, entry)
        if leg.flight.keep and self.store is not None:
            self.store.put(leg.key, encode(leg.key, entry))
        return entry

    def _remember(self, leg: Leg, entry: Entry) -> None:
        if leg.flight.keep:
            evicted = self.memory.put(leg.key, entry)
            if evicted:
                self._watcher.evicted(evicted)
            self._watcher.bytes("l1", self.memory.bytes)

    def _land(self, leg: Leg, found: Found) -> None:
        self._forget(leg)
        leg.flight.land(found)

    def _forget(self, leg: Leg) -> None:
        """Nobody can join this flight any more."""
        if self._flights.get(leg.key) is leg.flight:
            del self._flights[leg.key]


def _board(position: int, key: bytes, under_way: dict[bytes, Flight], write: bool) -> Leg:
    flight = under_way.get(key)
    if flight is None:
        flight = under_way[key] = Flight(write)
        flight.waiting = 1
        return Leg(position, key, flight, joined=False)
    flight.keep |= write
    flight.waiting += 1
    return Leg(position, key, flight, joined=True)


async def _landing(legs: Sequence[Leg], leaving: Leaving | None) -> None:
    """`asyncio.wait`, as a caller that is cancelled there does not cancel what others wait for."""
    late = {leg.flight.landed() for leg in legs if leg.flight.found is None}
    if not late:
        return
    if leaving is None:
        await asyncio.wait(late)
        return
    left, landed = asyncio.ensure_future(leaving()), asyncio.ensure_future(asyncio.wait(late))
    try:
        await asyncio.wait({left, landed}, return_when=asyncio.FIRST_COMPLETED)
        if not landed.done():
            raise left.result()
    finally:
        left.cancel()
        landed.cancel()
