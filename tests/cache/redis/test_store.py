import asyncio
import pickle
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.rig.fault_proxy import Fault, FaultProxy
from bench.rig.port import free_port
from bench.rig.redis_server import RedisServer
from cache.redis.breaker import Circuit
from cache.redis.store import CHUNK, Lost, RedisStore
from tests.support.certificate import certify
from tests.support.patience import settled
from tests.support.recorder import Recorder
from tests.support.store import PATIENT, opened

pytestmark = pytest.mark.anyio


def fill(server: RedisServer, n: int) -> list[bytes]:
    keys = [b"sl2:%d" % i for i in range(n)]
    server.client().mset({key: b"value of " + key for key in keys})
    return keys


def mgets(server: RedisServer) -> int:
    """Look-ups that reached Redis, without the one that each store asks as it starts."""
    stats: dict[str, Any] = server.client().info("commandstats")
    return int(stats["cmdstat_mget"]["calls"]) - 1


@pytest.mark.parametrize(
    ("spans", "commands"),
    [
        pytest.param([(0, 0)], 0, id="no keys need no Redis"),
        pytest.param([(n, n + 1) for n in range(100)], 1, id="those of one tick leave together"),
        pytest.param([(0, 2 * CHUNK + 44)], 3, id="a large look-up is cut into chunks"),
        pytest.param([(0, 1), (1, 128), (5, 250), (390, 400)], 3, id="requests share chunks"),
    ],
)
async def test_look_ups_travel_together_and_everybody_gets_the_values_of_its_own_keys(
    server: RedisServer, spans: list[tuple[int, int]], commands: int
) -> None:
    """In the caller's order. No command carries more than 128 keys."""
    keys = fill(server, 400)
    async with opened(server.url) as store:
        replies = await asyncio.gather(*(store.get(keys[first:last]) for first, last in spans))
    assert replies == [[b"value of " + key for key in keys[first:last]] for first, last in spans]
    assert mgets(server) == commands


async def test_load_makes_batches_larger_instead_of_queues_longer() -> None:
    """While all connections are busy, keys gather: a slow Redis gets few large commands."""
    with RedisServer() as own:
        keys = fill(own, 100)
        async with opened(own.url, connections=2) as store:
            own.pause()
            tasks = []
            for key in keys:
                tasks.append(asyncio.create_task(store.get([key])))
                await asyncio.sleep(0)  # each in a tick of its own
            own.resume()
            replies = await asyncio.gather(*tasks)
        assert replies == [[b"value of " + key] for key in keys]
        assert mgets(own) <= 4


async def test_never_more_connections_than_allowed(server: RedisServer) -> None:
    """Two for the look-ups and two for the writes are all that this server ever sees."""
    keys = fill(server, 500)
    async with opened(server.url, connections=2) as store:

        async def one(i: int) -> list[Any]:
            await asyncio.sleep(i % 50 / 1000)
            store.put(keys[i], b"value of " + keys[i])
            return list(await store.get([keys[i]]))

        replies = await asyncio.gather(*(one(i) for i in range(500)))
        with server.client() as client:
            others = [c for c in client.client_list() if c["cmd"] in ("mget", "set")]
    assert replies == [[b"value of " + key] for key in keys]
    assert len(others) <= 4


async def test_cancellation_never_mixes_up_replies(server: RedisServer) -> None:
    """Thousands of look-ups, half of them cancelled at odd moments: every answer is its own."""
    keys = fill(server, 200)
    async with opened(server.url, connections=3) as store:

        async def one(i: int) -> str:
            want = [keys[i * 7 % 200], keys[i * 13 % 200]]
            try:
                async with asyncio.timeout(0.0002 * (i % 23) if i % 2 else PATIENT):
                    replies = await store.get(want)
            except TimeoutError:
                return "left"
            return "right" if replies == [b"value of " + key for key in want] else "wrong"

        ends: list[str] = []
        for wave in range(20):
            ends += await asyncio.gather(*(one(i) for i in range(wave * 100, wave * 100 + 100)))
    assert ends.count("wrong") == 0
    assert ends.count("left") > 0
    assert ends.count("right") >= 1000


async def test_a_busy_event_loop_is_not_taken_for_a_broken_redis() -> None:
    """The reply arrived while this process was busy with something else: it still counts."""
    with RedisServer() as own:
        (key,) = fill(own, 1)
        async with opened(own.url, budget=0.2) as store:
            await store.get([key])
            own.pause()
            task = asyncio.create_task(store.get([key]))
            for _ in range(10):
                await asyncio.sleep(0)  # until the command is out
            own.resume()
            time.sleep(0.5)  # the loop stands still, Redis answers
            while mgets(own) < 2:
                time.sleep(0.01)
            assert await task == [b"value of " + key]
            assert store.state is Circuit.CLOSED


async def test_a_loop_that_is_busy_all_the_time_still_gets_large_replies(
    server: RedisServer,
) -> None:
    """Every turn of the loop takes longer than the budget, and the reply takes several turns."""
    keys = [b"sl2:large %d" % number for number in range(128)]
    with server.client() as client:
        client.mset(dict.fromkeys(keys, b"v" * 4652))
    loop, busy = asyncio.get_running_loop(), True

    def work() -> None:
        time.sleep(0.12)
        if busy:
            loop.call_soon(work)

    async with opened(server.url, budget=0.1) as store:
        await store.get(keys[:1])
        loop.call_soon(work)
        replies = await store.get(keys)
        busy = False
        assert replies == [b"v" * 4652] * 128
        assert store.state is Circuit.CLOSED


async def test_a_redis_that_answers_one_after_another_is_waited_for(server: RedisServer) -> None:
    """One connection and four chunks, each reply in time: the last comes after the budget."""
    keys = fill(server, 4 * CHUNK)
    async with (
        FaultProxy(server.url, delay=0.6) as proxy,
        opened(proxy.url, budget=2.0, connections=1) as store,
    ):
        proxy.fault = Fault.DELAY
        began = time.monotonic()
        assert await store.get(keys) == [b"value of " + key for key in keys]
        assert time.monotonic() - began > 2.0
        assert store.state is Circuit.CLOSED


async def test_a_store_that_is_not_started_or_closed_is_skipped(server: RedisServer) -> None:
    """Before and after its life it answers "not asked", and neither raises nor waits."""
    recorder = Recorder()
    store = RedisStore(server.url, watcher=recorder)
    assert await store.get([b"sl2:a"]) == [Lost.SKIPPED]
    store.put(b"sl2:a", b"value")
    assert await store.flush() == 0
    await store.close()
    await store.start()
    await store.close()
    assert await store.get([b"sl2:a"]) == [Lost.SKIPPED]
    store.put(b"sl2:a", b"value")
    assert recorder.lost == 2
    assert len(await store.inspect()) == 1


async def test_closing_in_the_middle_of_lookups_leaves_nobody_waiting(server: RedisServer) -> None:
    """Whoever waits at shutdown is told that there is no reply."""
    keys = fill(server, 300)
    store = RedisStore(server.url, connections=1)
    await store.start()
    tasks = [asyncio.create_task(store.get([key])) for key in keys]
    await asyncio.sleep(0)
    await store.close()
    replies = await asyncio.wait_for(asyncio.gather(*tasks), 60)
    allowed = {Lost.FAILED, Lost.SKIPPED}
    assert all(
        reply in allowed or reply == b"value of " + key
        for key, (reply,) in zip(keys, replies, strict=True)
    )


async def test_starting_says_whether_redis_answers(server: RedisServer) -> None:
    """A service starts either way, in each of its processes, and can say which."""
    store: RedisStore = pickle.loads(pickle.dumps(RedisStore(server.url, budget=PATIENT)))
    assert await store.start()
    await store.close()
    absent = RedisStore(f"redis://127.0.0.1:{free_port()}")
    assert not await absent.start()
    assert await absent.get([b"sl2:a"]) == [Lost.FAILED]
    await absent.close()


async def test_a_round_trip_is_timed_and_the_breaker_announced(server: RedisServer) -> None:
    """What a dashboard needs is told as it happens, once for each trip."""
    recorder = Recorder()
    async with opened(server.url, watcher=recorder) as store:
        await asyncio.gather(*(store.get([key]) for key in fill(server, 10)))
        ((tier, seconds),) = recorder.trips
        assert tier == "redis"
        assert 0 < seconds < PATIENT
        assert recorder.circuits == [str(Circuit.CLOSED)]


async def test_a_server_without_limit_or_eviction_is_warned_about(server: RedisServer) -> None:
    """Redis as it comes from the box grows for ever, or fills up and refuses; one set up is not."""
    async with opened(server.url) as store:
        warnings = await store.inspect()
    assert len(warnings) == 2
    assert "maxmemory 0" in warnings[0]
    assert "noeviction" in warnings[1]
    assert str(server.port) not in " ".join(warnings)
    with RedisServer("--maxmemory", "20mb", "--maxmemory-policy", "allkeys-lfu") as own:
        async with opened(own.url) as store:
            assert await store.inspect() == []


async def test_a_lookup_never_joins_keys_that_were_given_up(server: RedisServer) -> None:
    """With all connections stuck, those that gather are settled by their budget and still there."""
    async with FaultProxy(server.url) as proxy, opened(proxy.url, budget=0.1) as store:
        proxy.fault = Fault.BLACKHOLE
        stuck = []
        for number in range(9):  # eight connections, and one that gathers
            stuck.append(asyncio.create_task(store.get([b"sl2:%d" % number])))
            await settled()
        assert await asyncio.gather(*stuck) == [[Lost.FAILED]] * 9
        while (reply := await store.get([b"sl2:a", b"sl2:b"])) == [Lost.SKIPPED] * 2:
            await asyncio.sleep(0.02)  # until the breaker lets one try
        assert reply == [Lost.FAILED] * 2


async def test_what_may_not_be_read_is_said_to_be_unknown(server: RedisServer) -> None:
    """A managed Redis may forbid INFO; that is one sentence, not an error."""
    server.command("ACL", "SETUSER", "blind", "on", ">w", "~*", "+get")
    async with opened(server.url.replace("redis://", "redis://blind:w@")) as store:
        (warning,) = await store.inspect()
    assert "does not let this user" in warning


SLOTS = 16_384


@asynccontextmanager
async def three_nodes() -> AsyncIterator[list[RedisServer]]:
    """A Cluster of three primaries, each with a third of the slots."""
    options = ("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no")
    with ExitStack() as stack:
        nodes = [stack.enter_context(RedisServer(*options)) for _ in range(3)]
        for number, node in enumerate(nodes):
            first, last = (SLOTS * n // 3 for n in (number, number + 1))
            node.command("CLUSTER", "ADDSLOTSRANGE", first, last - 1)
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in nodes[1:]:
            node.command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        async with asyncio.timeout(60):
            for node in nodes:
                await _whole(node)
        yield nodes


async def _whole(node: RedisServer) -> None:
    with node.client() as client:
        while len(client.cluster("slots")) < 3 or client.cluster("info")["cluster_state"] != "ok":
            await asyncio.sleep(0.02)


async def test_a_cluster_of_three_loses_a_node_and_gets_it_back() -> None:
    """Every answer is the right value, or none: meanwhile, and once the node is there again."""
    async with three_nodes() as nodes:
        url = nodes[0].url.replace("redis://", "redis+cluster://")
        recorder = Recorder()
        async with opened(url, watcher=recorder) as store:
            keys = [b"sl2:%d" % i for i in range(90)]
            values = [b"value of " + key for key in keys]
            for key, value in zip(keys, values, strict=True):
                store.put(key, value)
            assert await store.flush() == 0
            assert await store.get([*keys, b"sl2:absent"]) == [*values, None]
            assert recorder.kept == 90
            assert len(await store.inspect()) == 2
            held = [int(node.command("DBSIZE")) for node in nodes]
            assert sum(held) == 90
            assert min(held) > 0
            nodes[2].kill()
            for reply, value in zip(await store.get(keys), values, strict=True):
                assert isinstance(reply, Lost) or reply == value
            nodes[2].start()  # under its old name, and empty
            async with asyncio.timeout(60):
                await _whole(nodes[2])
                while any(isinstance(reply, Lost) for reply in await store.get(keys)):
                    await asyncio.sleep(0.1)
            replies = await store.get(keys)
            for reply, value in zip(replies, values, strict=True):
                assert reply in (value, None)
            assert sum(reply is not None for reply in replies) == held[0] + held[1]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
async def test_it_speaks_tls_and_checks_the_certificate(tmp_path: Path) -> None:
    """rediss:// with the right authority works; without it, it is an outage."""
    cert, key = certify(tmp_path)
    port = free_port()
    tls = ["--tls-port", str(port), "--tls-cert-file", str(cert), "--tls-key-file", str(key)]
    with RedisServer(*tls, "--tls-ca-cert-file", str(cert), "--tls-auth-clients", "no"):
        url = f"rediss://127.0.0.1:{port}"
        async with opened(f"{url}?ssl_ca_certs={cert}") as store:
            assert await store.get([b"sl2:a"]) == [None]
        async with opened(url) as store:
            assert await store.get([b"sl2:a"]) == [Lost.FAILED]


async def test_a_key_of_another_type_is_a_miss(server: RedisServer) -> None:
    """A list under our name is nobody's vector."""
    server.client().rpush(b"sl2:list", b"x")
    async with opened(server.url) as store:
        assert await store.get([b"sl2:list"]) == [None]
