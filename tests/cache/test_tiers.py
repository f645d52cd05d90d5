import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from bench.rig.redis_server import RedisServer
from cache import Entry, MemoryTier, RedisStore, State, VectorCache, decode, encode
from cache.redis.store import Reply
from cache.tiers import Abandoned, Compute, Unsound
from tests.support.model import DIM, Model, ask, entry_of, keys_of, many, states, wrong
from tests.support.patience import until
from tests.support.recorder import Recorder

pytestmark = pytest.mark.anyio

MEGABYTE = 1 << 20


@asynccontextmanager
async def caching(
    server: RedisServer | None = None, recorder: Recorder | None = None, memory: int = MEGABYTE
) -> AsyncIterator[VectorCache]:
    recorder = recorder or Recorder()
    store = RedisStore(server.url, budget=30.0, watcher=recorder) if server else None
    cache = VectorCache(DIM, MemoryTier(memory), store, recorder)
    await cache.start()
    try:
        yield cache
    finally:
        await cache.close()


async def flushed(cache: VectorCache) -> None:
    assert cache.store is not None
    assert await cache.store.flush() == 0


async def test_two_caches_on_one_redis_share_their_hits(server: RedisServer) -> None:
    """Tokens and flag included, and twice a key named twice, which nobody computed or joined. Nor
    is it watched whether the client of a hit leaves."""
    model, keys = Model(), [*many(50), *many(1)]

    def asked() -> asyncio.Future[type[Exception]]:
        raise AssertionError

    async with caching(server) as one, caching(server) as other:
        await ask(one, keys, model.compute(keys))
        await flushed(one)
        for state in ("hit-l2", "hit-l1"):
            found = await ask(other, keys, model.compute(keys), leaving=asked)
            assert states(found) == [state] * 51
            assert wrong(keys, found) == 0
    assert model.computed == 50


async def test_a_request_half_known_computes_exactly_the_other_half(server: RedisServer) -> None:
    """Known keys in memory, known keys in Redis and new ones, mixed: only the new are computed."""
    model, keys = Model(), many(30)
    async with caching(server) as one, caching(server) as other:
        await ask(one, keys[::3], model.compute(keys[::3]))
        await flushed(one)
        await ask(other, keys[1::3], model.compute(keys[1::3]))
        model.calls.clear()
        found = await ask(other, keys, model.compute(keys))
    assert model.calls == [list(range(2, 30, 3))]
    assert states(found) == ["hit-l2", "hit-l1", "miss"] * 10
    assert wrong(keys, found) == 0


@pytest.mark.parametrize("memory", [0, 5000])
async def test_what_memory_does_not_hold_is_found_in_redis(
    server: RedisServer, memory: int
) -> None:
    """Memory is the smaller of the two, and may be none at all."""
    model, keys, recorder = Model(), many(100), Recorder()
    async with caching(server, recorder, memory) as cache:
        await ask(cache, keys, model.compute(keys))
        await flushed(cache)
        found = await ask(cache, keys, model.compute(keys))
        assert recorder.held.get("l1", 0) == cache.memory.bytes <= memory
        assert bool(memory) == bool(recorder.gone)
    assert {*states(found)} <= {"hit-l1", "hit-l2"}
    assert wrong(keys, found) == 0
    assert model.computed == 100


async def test_hits_in_memory_never_yield_to_the_event_loop() -> None:
    """A hit needs no task, no await and no Redis, and is counted once for all of its keys."""
    model, keys, recorder = Model(), many(4), Recorder()
    async with caching(recorder=recorder) as cache:
        await ask(cache, keys, model.compute(keys))
        before = recorder.calls
        with pytest.raises(StopIteration) as stopped:
            ask(cache, keys, model.compute(keys)).send(None)
        assert states(stopped.value.value) == ["hit-l1"] * 4
        assert wrong(keys, stopped.value.value) == 0
        assert recorder.calls == before + 1


class Client:
    """One that may leave, and work that is begun when a test says so."""

    def __init__(self, begun: bool = False) -> None:
        self.left = asyncio.Event()
        self.begun = begun

    async def _leave(self) -> type[Exception]:
        await self.left.wait()
        return ConnectionResetError

    def leaving(self) -> asyncio.Future[type[Exception]]:
        return asyncio.ensure_future(self._leave())

    def ask(
        self, cache: VectorCache, model: Model, keys: list[bytes], **options: Any
    ) -> asyncio.Task[Any]:
        options = {"leaving": self.leaving, "begun": lambda: self.begun, **options}
        return asyncio.create_task(ask(cache, keys, model.compute(keys), **options))

    async def wait(
        self, cache: VectorCache, model: Model, keys: list[bytes], **options: Any
    ) -> asyncio.Task[Any]:
        """Ask, until the model is asked as well."""
        calls = len(model.calls)
        task = self.ask(cache, model, keys, **options)
        await until(lambda: len(model.calls) > calls)
        return task


def leave(task: asyncio.Task[Any], client: Client, how: str) -> None:
    if how == "by its client":
        client.left.set()
    else:
        task.cancel()


LEAVES = pytest.mark.parametrize("leaves", ["by its client", "by cancellation"])
LEFT = (ConnectionResetError, asyncio.CancelledError)


async def test_a_client_that_left_leaves_nothing_to_the_collector() -> None:
    """Its items may be pictures of 20 MB, and the collector comes by seldom."""

    class Job:
        def __call__(self) -> bool:
            return False

    model, keys, client, job = Model(held=True), many(3), Client(), Job()
    held = weakref.ref(job)
    gc.disable()
    try:
        async with caching() as cache:
            task = await client.wait(cache, model, keys, begun=job)
            del job
            client.left.set()
            with contextlib.suppress(ConnectionResetError):
                await task
            del task
            await until(lambda: held() is None)
    finally:
        gc.enable()


@pytest.mark.parametrize("read", [True, False])
async def test_what_is_not_begun_when_everybody_has_left_is_given_up(read: bool) -> None:
    """At once: nothing is in the air, and the next to come starts afresh and is answered."""
    model, keys, client = Model(held=True), many(3), Client()
    async with caching() as cache:
        task = await client.wait(cache, model, keys, read=read)
        client.left.set()
        with pytest.raises(ConnectionResetError):
            await task
        assert not cache._under_way
        model.gate.set()
        found = await ask(cache, keys, model.compute(keys))
        assert states(found) == ["miss"] * 3
        assert wrong(keys, found) == 0
        await until(lambda: not cache._flights)


@LEAVES
async def test_what_is_begun_when_everybody_has_left_is_kept(leaves: str) -> None:
    """The client that asks again finds it done, though nobody but the cache held it."""
    model, keys, client = Model(held=True), many(3), Client(begun=True)
    async with caching() as cache:
        task = await client.wait(cache, model, keys)
        leave(task, client, leaves)
        with pytest.raises(LEFT):
            await task
        del task
        gc.collect()
        model.gate.set()
        await until(lambda: len(cache.memory) == 3)
        assert states(await ask(cache, keys, model.compute(keys))) == ["hit-l1"] * 3
    assert model.computed == 3


async def test_work_is_not_given_up_while_one_still_waits_for_a_part_of_it() -> None:
    """The first to ask leaves, another has joined one of three keys; then it leaves as well."""
    model, keys = Model(held=True), many(3)
    async with caching() as cache:
        first, second, third = Client(), Client(), Client()
        one = await first.wait(cache, model, keys)
        two, three = (client.ask(cache, model, keys[1:2]) for client in (second, third))
        await asyncio.sleep(0)
        first.left.set()
        second.left.set()
        await asyncio.wait([one, two])
        model.gate.set()
        ends = await asyncio.gather(one, two, three, return_exceptions=True)
        assert [type(end) for end in ends[:2]] == [ConnectionResetError] * 2
        assert wrong(keys[1:2], ends[2]) == 0  # type: ignore[arg-type]
        assert model.calls == [[0, 1, 2]]


async def test_a_client_that_leaves_takes_only_its_own_work_along() -> None:
    """It waited for what another computes and for a key of its own: only that is given up."""
    model, keys = Model(held=True), many(2)
    async with caching() as cache:
        stays, leaves = Client(), Client()
        one = await stays.wait(cache, model, keys[:1])
        two = await leaves.wait(cache, model, keys)
        leaves.left.set()
        await asyncio.wait([two])
        assert isinstance(two.exception(), ConnectionResetError)
        model.gate.set()
        assert wrong(keys[:1], await one) == 0
        await until(lambda: not cache._flights)
        assert cache.memory.get(keys[1]) is None


async def test_overlapping_requests_compute_each_key_once() -> None:
    """A request joins what others have under way and computes only the rest."""
    model, keys = Model(held=True), many(9)
    async with caching() as cache:
        first = await Client().wait(cache, model, keys[:6])
        other = await Client().wait(cache, model, keys[3:])
        model.gate.set()
        second = await other
        assert wrong(keys[3:], second) == wrong(keys[:6], await first) == 0
    assert states(second) == ["join"] * 3 + ["miss"] * 3
    assert model.calls == [[0, 1, 2, 3, 4, 5], [3, 4, 5]]


async def test_equal_lookups_ask_redis_once(server: RedisServer) -> None:
    """Fifty requests for one key that Redis knows are fifty hits, and the vector travels once."""
    model, keys, recorder = Model(), keys_of("known"), Recorder()
    server.client().set(keys[0], encode(keys[0], entry_of(keys[0])))
    async with caching(server, recorder) as cache:
        before = int(server.client().info("stats")["keyspace_hits"])
        ends = await asyncio.gather(*(ask(cache, keys, model.compute(keys)) for _ in range(50)))
        assert int(server.client().info("stats")["keyspace_hits"]) == before + 1
    assert {state for end in ends for state in states(end)} == {"hit-l2"}
    assert [wrong(keys, end) for end in ends] == [0] * 50
    assert recorder.results["redis", "hit"] == 50
    assert model.calls == []


async def test_what_landed_during_a_lookup_is_not_computed_again(server: RedisServer) -> None:
    """A request that asked Redis before the vector was there finds it in memory after."""
    model, keys = Model(), keys_of("a")
    async with caching(server) as cache:
        assert cache.store is not None
        get, asked, held = cache.store.get, asyncio.Event(), asyncio.Event()

        async def slow(keys: Sequence[bytes]) -> list[Reply]:
            replies = await get(keys)
            asked.set()
            await held.wait()
            return replies

        with patch.object(cache.store, "get", slow):
            late = asyncio.create_task(ask(cache, keys, model.compute(keys)))
            await asked.wait()
        await ask(cache, keys, model.compute(keys))
        held.set()
        assert states(await late) == ["hit-l1"]
    assert model.computed == 1


@LEAVES
async def test_a_storm_of_requests_and_of_clients_that_leave_is_never_wrong(
    server: RedisServer, leaves: str
) -> None:
    """A third of them leave at odd moments, whatever was begun: right answers, nothing left."""
    chance = np.random.default_rng(7)
    model, keys = Model(slow=0.002), many(60)
    async with caching(server, memory=4000) as cache:

        async def one(i: int) -> str:
            client, want = Client(i % 2 == 0), [keys[j] for j in chance.integers(0, 60, 5)]
            await asyncio.sleep(float(chance.random()) * 0.2)
            task = client.ask(cache, model, want)
            if i % 3 == 0:
                later = float(chance.random()) * 0.004
                asyncio.get_running_loop().call_later(later, leave, task, client, leaves)
            try:
                return "wrong" if wrong(want, await task) else "right"
            except LEFT:
                return "left"

        ends = await asyncio.gather(*(one(i) for i in range(900)))
        await until(lambda: not cache._flights)
        assert not cache._under_way
    assert ends.count("wrong") == 0
    assert ends.count("right") >= 600
    assert ends.count("left") > 0


async def test_a_look_up_fills_only_the_places_that_are_empty(server: RedisServer) -> None:
    """What the caller put there, an error of its own say, stays and is not asked for."""
    model, keys, recorder, refusal = Model(), many(4), Recorder(), ValueError("known to be bad")
    async with caching(server) as one, caching(server, recorder) as other:
        await ask(one, keys, model.compute(keys))
        await flushed(one)
        found = other.peek(keys)
        found.values[2] = refusal
        await other.resolve(keys, found, model.compute(keys))
        assert found.values[2] is refusal
        assert [found.values[i] for i in (0, 1, 3)] == [entry_of(keys[i]) for i in (0, 1, 3)]
        assert [*map(str, found.states)] == ["hit-l2", "hit-l2", "hit-l1", "hit-l2"]
        assert recorder.results["redis", "hit"] == 3


async def test_an_item_that_fails_fails_alone_and_is_not_kept() -> None:
    """Its neighbours are answered and cached; it is tried again next time."""
    keys, calls = many(3), []

    async def compute(positions: list[int]) -> Sequence[Entry | Exception]:
        calls.append(positions)
        return [ValueError("bad image") if p == 1 else entry_of(keys[p]) for p in positions]

    async with caching() as cache:
        first = await ask(cache, keys, compute)
        await ask(cache, keys, compute)
    assert isinstance(first.values[1], ValueError)
    assert first.values[::2] == [entry_of(k) for k in keys[::2]]
    assert calls == [[0, 1, 2], [1]]


async def test_a_computation_that_raises_gives_its_exception_to_all_who_waited() -> None:
    """The first and the joiners alike, and the next request starts afresh."""
    keys, failure = keys_of("a", "b"), ConnectionError("no worker")

    async def broken(_: list[int]) -> Sequence[Entry | Exception]:
        await asyncio.sleep(0)  # until the other has joined
        raise failure

    async with caching() as cache:
        ends = await asyncio.gather(ask(cache, keys, broken), ask(cache, keys[1:], broken))
        assert [value for end in ends for value in end.values] == [failure] * 3
        assert [states(end) for end in ends] == [["miss", "miss"], ["join"]]
        model = Model()
        assert wrong(keys, await ask(cache, keys, model.compute(keys))) == 0


def entry(vector: Any) -> Entry:
    return Entry(vector.astype("<f4").tobytes())


GOOD = entry(np.eye(1, DIM))


@pytest.mark.parametrize(
    "given",
    [
        pytest.param([], id="none"),
        pytest.param([GOOD], id="one too few"),
        pytest.param([GOOD] * 3, id="one too many"),
        pytest.param([entry(np.full(DIM, np.nan))] * 2, id="nan"),
        pytest.param([entry(np.full(DIM, np.inf))] * 2, id="inf"),
        pytest.param([entry(np.ones(DIM - 1))] * 2, id="short"),
    ],
)
async def test_what_is_no_vector_of_this_model_is_neither_kept_nor_served(
    server: RedisServer, given: list[Entry]
) -> None:
    """A model gone wrong yields errors, not poison that stays for a month; and to hand out another
    number of vectors by guess could give somebody another's."""

    async def compute(_: list[int]) -> Sequence[Entry | Exception]:
        return given

    async with caching(server) as cache:
        found = await ask(cache, keys_of("a", "b"), compute)
        assert all(isinstance(value, Unsound) for value in found.values)
        assert len(cache.memory) == 0
        await flushed(cache)
    assert server.client().dbsize() == 0


async def _nonsense(_: list[int]) -> Any:
    return [None]


async def _cancelled(_: list[int]) -> Any:
    raise asyncio.CancelledError


@pytest.mark.parametrize("compute", [_nonsense, _cancelled])
async def test_a_computation_that_breaks_leaves_nobody_waiting(compute: Compute) -> None:
    """A bug or a cancellation of the work is an error for its own request alone."""
    async with caching() as cache:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        (value,) = (await asyncio.wait_for(ask(cache, keys_of("a"), compute), 60)).values
        assert not cache._under_way
    assert isinstance(value, Abandoned)


async def test_a_fresh_request_computes_what_is_known_and_replaces_it(server: RedisServer) -> None:
    """no-cache: the look-up is bypassed, and both tiers hold the new vector."""
    model, keys, new = Model(), keys_of("a"), GOOD._replace(tokens=9)

    async def compute(_: list[int]) -> Sequence[Entry | Exception]:
        return [new]

    async with caching(server) as cache:
        await ask(cache, keys, model.compute(keys))
        found = await ask(cache, keys, compute, read=False)
        assert (found.states, found.values) == ([State.BYPASS], [new])
        assert cache.memory.get(keys[0]) == new
        await flushed(cache)
    blob = server.client().get(keys[0])
    assert isinstance(blob, bytes)
    assert decode(keys[0], blob, DIM) == new


async def test_a_fresh_request_neither_joins_nor_is_joined() -> None:
    """Its vector is made for it alone; ordinary requests go on as if it were not there."""
    model, keys = Model(slow=0.02), keys_of("a", "a")
    async with caching() as cache:
        ends = await asyncio.gather(
            ask(cache, keys, model.compute(keys)),
            ask(cache, keys, model.compute(keys), read=False),
            ask(cache, keys, model.compute(keys), read=False),
            ask(cache, keys, model.compute(keys)),
        )
    firsts = ["miss", "bypass", "bypass", "join"]
    assert [states(end) for end in ends] == [[first, "join"] for first in firsts]
    assert model.calls == [[0]] * 3
    assert all(wrong(keys, end) == 0 for end in ends)


async def test_a_request_that_stores_nothing_still_looks_up(server: RedisServer) -> None:
    """no-store: it may be answered from the cache, and leaves neither tier another entry."""
    model, keys = Model(), keys_of("a")
    server.client().set(keys[0], encode(keys[0], entry_of(keys[0])))
    async with caching(server) as cache:
        found = await ask(cache, keys, model.compute(keys), write=False)
        assert states(found) == ["hit-l2"]
        assert model.calls == []
        new = many(3)
        assert wrong(new, await ask(cache, new, model.compute(new), write=False)) == 0
        assert len(cache.memory) == 0
        await flushed(cache)
    assert server.client().dbsize() == 1


async def test_one_that_stores_and_joins_one_that_does_not_is_stored() -> None:
    """no-store speaks for its own request, not for the next one's."""
    model, keys = Model(slow=0.02), keys_of("a")
    async with caching() as cache:
        await asyncio.gather(
            ask(cache, keys, model.compute(keys), write=False),
            ask(cache, keys, model.compute(keys)),
        )
        assert cache.memory.get(keys[0]) is not None
    assert model.computed == 1


async def test_closing_lets_flights_land_and_writes_them(server: RedisServer) -> None:
    """A computation whose client has gone is still kept for the next process."""
    model, keys = Model(held=True), many(3)
    async with caching(server) as cache:
        task = await Client(begun=True).wait(cache, model, keys)
        task.cancel()
        asyncio.get_running_loop().call_soon(model.gate.set)
    assert server.client().dbsize() == 3


async def test_closing_does_not_wait_for_ever_for_a_flight() -> None:
    """What has not landed by then is given up, and whoever still waits is told so."""
    model, keys = Model(held=True), keys_of("a")
    cache = VectorCache(DIM, MemoryTier(MEGABYTE))
    await cache.start()
    task = await Client().wait(cache, model, keys)
    await asyncio.wait_for(cache.close(timeout=0.05), 60)
    (value,) = (await asyncio.wait_for(task, 60)).values
    assert isinstance(value, Abandoned)


async def test_every_result_is_counted_where_it_happened(server: RedisServer) -> None:
    """Counts come once for each resolve and tier, never once for each vector."""
    model, keys, recorder = Model(), [*many(40), *keys_of("text 0", "text 1")], Recorder()
    for key in keys[:10]:
        server.client().set(key, encode(key, entry_of(key)))
    server.client().set(keys[10], b"not a vector")
    async with caching(server, recorder) as cache:
        await ask(cache, keys, model.compute(keys))
        assert recorder.calls <= 6
        await ask(cache, keys, model.compute(keys))
        await ask(cache, keys[:4], model.compute(keys), read=False)
        await flushed(cache)
    assert recorder.results == {
        ("l1", "miss"): 42,
        ("redis", "hit"): 12,  # the two that came twice, twice
        ("redis", "corrupt"): 1,
        ("redis", "miss"): 29,
        ("l1", "hit"): 42,
        ("l1", "bypass"): 4,
    }
    assert recorder.kept == 30 + 4
