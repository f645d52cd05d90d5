"""Vectors by content: memory, what is known to be bad, Redis, and then the model, each asked once.

    peek ─► memory      resolve ─► negative ─► Redis ─► join, or one task: compute ─► keep, answer

`peek` is synchronous: a request that memory answers in full needs no task. A Redis look-up belongs
to its caller; look-ups of one moment share an MGET. The misses of a request are one `Flight`, one
call of `compute`: other requests for its keys join it and get its vectors or exceptions. It runs in
its own task, so a client that disconnects takes nothing from the others.

read=False (no-cache) computes afresh: it neither looks up, nor joins, nor is joined; its state is
BYPASS, and its vector replaces the kept one. write=False (no-store) keeps nothing, unless another
request that does store joins the flight. A key twice in one request is computed once: MISS for the
first, JOIN for the others.

A vector of the wrong length or with a NaN is never kept or served: it becomes `Unsound`. Exceptions
are not kept, except `deterministic` ones, which the negative tier remembers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial

from cache.codec import Corrupt, Entry, encode, opened, strays
from cache.memory import MemoryTier, NegativeTier
from cache.redis.store import Lost, RedisStore, Reply
from cache.watcher import SILENT, Watcher

Keys = Sequence[bytes]
Value = Entry | Exception
Compute = Callable[[list[int]], Awaitable[Sequence[Value]]]
Lacking = Mapping[int, Exception]
# A class and no instance: an exception that is raised out of a future that a frame of its traceback
# holds would wait for the collector, with all that the frames hold.
Leaving = Callable[[], asyncio.Future[type[Exception]]]


class State(StrEnum):
    HIT_L1 = "hit-l1"
    HIT_L2 = "hit-l2"
    JOIN = "join"
    MISS = "miss"
    BYPASS = "bypass"


NOTHING: Lacking = {}
L1, L2 = State.HIT_L1, State.HIT_L2  # a member of an enum takes three times as long to look up


class Found:
    """What became of each key, place by place; no value: not known yet. Columns, as a pair for each
    key costs a hit more than its look-up in memory does."""

    __slots__ = ("flown", "states", "values")

    def __init__(self, values: list[Value | None], states: list[State]) -> None:
        self.values = values
        self.states = states
        self.flown = False  # whether any of it was computed, by this request or one it joined

    def __len__(self) -> int:
        return len(self.values)

    def missing(self) -> list[int]:
        return [place for place, value in enumerate(self.values) if value is None]

    def put(self, place: int, value: Value, state: State) -> None:
        self.values[place] = value
        self.states[place] = state

    def fill(self, places: Sequence[int], rest: Found) -> None:
        for place, value, state in zip(places, rest.values, rest.states, strict=True):
            self.values[place] = value
            self.states[place] = state


class Abandoned(Exception):
    """The computation was cancelled: the service is closing."""


class Unsound(Exception):
    """The computation gave something that is not a vector of this model."""


class Flight:
    """One call of `compute`, and what it brings for each of its keys.

    `positions` are those of the keys in the request that computes them; `keep` says of each whether
    one of those who wait for it stores; `waiting` counts the requests whose clients are there.
    """

    __slots__ = ("begun", "bulk", "keep", "keys", "positions", "task", "values", "waiting")

    def __init__(self, begun: Callable[[], bool], bulk: bool = False) -> None:
        self.begun = begun
        self.bulk = bulk
        self.keys: list[bytes] = []
        self.positions: list[int] = []
        self.keep: list[bool] = []
        self.values: Sequence[Value] = []
        self.waiting = 0
        self.task: asyncio.Task[None] | None = None

    def add(self, key: bytes, position: int) -> int:
        self.keys.append(key)
        self.positions.append(position)
        self.keep.append(False)
        return len(self.keys) - 1


# Of a key that a request waits for: its place in the request, its flight and its place in that.
Seat = tuple[int, Flight, int]


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
        self._under_way: dict[bytes, tuple[Flight, int]] = {}
        self._flights: set[Flight] = set()  # the event loop itself holds tasks only weakly

    @property
    def problems(self) -> list[str]:
        """Public sentences on why the store does not serve at present."""
        return self.store.trouble.sentences if self.store is not None else []

    async def start(self) -> None:
        if self.store is not None:
            await self.store.start()

    async def close(self, timeout: float = 1.0) -> None:
        """Let flights land and writes go out, each for at most `timeout`."""
        tasks = [flight.task for flight in self._flights if flight.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        if self.store is not None:
            await self.store.close(timeout)

    def peek(self, keys: Keys, read: bool = True) -> Found:
        """What this process's memory has, without a task or an await; nothing for read=False."""
        if not read:
            self._watcher.looked_up("l1", "bypass", len(keys))
            return Found([None] * len(keys), [L1] * len(keys))
        values: list[Value | None] = [*map(self.memory.get, keys)]
        missed = values.count(None)
        if missed < len(values):
            self._watcher.looked_up("l1", "hit", len(values) - missed)
        if missed:
            self._watcher.looked_up("l1", "miss", missed)
        return Found(values, [L1] * len(values))

    async def resolve(
        self,
        keys: Keys,
        found: Found,
        compute: Compute,
        *,
        read: bool = True,
        write: bool = True,
        leaving: Leaving | None = None,
        bulk: bool = False,
        begun: Callable[[], bool] = lambda: True,
        lacking: Lacking = NOTHING,
    ) -> Found:
        """`found` of a moment ago, with a value and a state in every place that it lacked.

        `compute` is called at most once, with the positions of the unique keys that are neither
        known nor under way. If it raises, each of those positions gets what it raised. `leaving`
        is called only when something is computed: its future is done once the caller's client has
        left, and the exception that it holds is raised. `begun` says whether a worker has begun
        the computation: when all clients have left, one that is begun still lands and is kept, and
        another is cancelled. A computation in `bulk` may wait for others, so only bulk joins it.
        `lacking` has the places of content that did not come, so that nothing can be computed
        there: what nobody knows and nobody computes becomes its exception.
        """
        if read:
            if len(self.negative):
                self._recall(keys, found)
            if self.store is not None and None in found.values:
                places, asked = self._unasked(keys, found)
                self._take_in(places, asked, await self.store.get(asked), found, write)
        if None in found.values:
            found.flown = True
            own = Flight(begun, bulk)
            seats = self._board(keys, found, own, read, write, lacking)
            if own.keys:
                self._take_off(own, compute)
            await self._landing({flight for _, flight, _ in seats}, leaving)
            computed = State.MISS if read else State.BYPASS
            for place, flight, seat in seats:
                first = flight is own and flight.positions[seat] == place
                found.put(place, flight.values[seat], computed if first else State.JOIN)
        return found

    def _recall(self, keys: Keys, found: Found) -> None:
        for place in found.missing():
            error = self.negative.get(keys[place])
            if error is not None:
                found.put(place, error, L1)

    def _unasked(self, keys: Keys, found: Found) -> tuple[list[int], list[bytes]]:
        """Places without a value, and their keys, except for keys under way."""
        places = found.missing()
        if self._under_way:
            places = [place for place in places if keys[place] not in self._under_way]
        return places, [keys[place] for place in places]

    def _take_in(
        self, places: list[int], asked: Keys, replies: list[Reply], found: Found, write: bool
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

    def _board(
        self, keys: Keys, found: Found, own: Flight, read: bool, write: bool, lacking: Lacking
    ) -> list[Seat]:
        """A seat for each key that was not found: in a flight under way, or in the request's own.

        A flight that was under way a moment ago may have landed in memory since. Content that did
        not come is last: it may have come in another place of the request.
        """
        under_way = self._under_way if read else {}
        seats: list[Seat] = []
        for place in sorted(found.missing(), key=lacking.__contains__):
            key = keys[place]
            entry = self.memory.get(key) if read else None
            if entry is not None:
                found.put(place, entry, L1)
                continue
            slow = key in under_way and under_way[key][0].bulk and not own.bulk
            if key not in under_way or (slow and place not in lacking):
                if place in lacking:
                    found.put(place, lacking[place], State.MISS)
                    continue
                under_way[key] = own, own.add(key, place)
            flight, seat = under_way[key]
            flight.keep[seat] |= write
            seats.append((place, flight, seat))
        if joined := len(seats) - len(own.keys):
            self._watcher.looked_up("flight", "join", joined)
        return seats

    def _take_off(self, own: Flight, compute: Compute) -> None:
        self._flights.add(own)
        # nobody waits for ever: what a cancelled or broken task does not bring is this error
        own.values = [Abandoned("the computation was cancelled")] * len(own.keys)
        own.task = asyncio.create_task(self._compute(own, compute))
        own.task.add_done_callback(partial(self._landed, own))

    async def _landing(self, flights: set[Flight], leaving: Leaving | None) -> None:
        """Return when all have landed. Raises what `leaving` holds once the client has left."""
        tasks = {flight.task for flight in flights if flight.task is not None}
        left = leaving() if leaving is not None and tasks else None
        for flight in flights:
            flight.waiting += 1
        try:
            while tasks:
                watched = tasks if left is None else tasks | {left}
                await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                tasks = {task for task in tasks if not task.done()}
                if tasks and left is not None and left.done():
                    raise left.result()
        except BaseException:
            self._leave(flights)
            raise
        finally:
            if left is not None:
                left.cancel()

    def _leave(self, flights: set[Flight]) -> None:
        for flight in flights:
            flight.waiting -= 1
            if flight.task is not None and not flight.waiting and not flight.begun():
                self._forget(flight)
                flight.task.cancel()

    async def _compute(self, flight: Flight, compute: Compute) -> None:
        values: Sequence[Value]
        try:
            values = await compute(flight.positions)
            if len(values) != len(flight.keys):
                raise Unsound(f"{len(values)} vectors for {len(flight.keys)} items")
        except Exception as error:
            values = [error] * len(flight.keys)
        flight.values = [*map(self._kept, flight.keys, values, flight.keep)]

    def _landed(self, flight: Flight, task: asyncio.Task[None]) -> None:
        del task
        self._flights.discard(flight)
        self._forget(flight)
        flight.task = None  # or both, and the job behind `begun`, would wait for the collector

    def _kept(self, key: bytes, value: Value, keep: bool) -> Value:
        """What is served of a computed value, after it was kept where it may be."""
        if isinstance(value, Exception):
            if keep and getattr(value, "deterministic", False):
                self.negative.put(key, type(value))
            return value
        if not value.sound(self.dim):
            return Unsound(f"not {self.dim} finite numbers")
        if keep:
            self._remember(key, value)
            if self.store is not None:
                self.store.put(key, encode(key, value, self._secret))
        return value

    def _remember(self, key: bytes, entry: Entry) -> None:
        if self.memory.limit:
            evicted = self.memory.put(key, entry)
            if evicted:
                self._watcher.evicted(evicted)
            self._watcher.bytes("l1", self.memory.bytes)

    def _forget(self, flight: Flight) -> None:
        """Nobody can join it any more."""
        for key in flight.keys:
            if self._under_way.get(key, (None,))[0] is flight:
                del self._under_way[key]
