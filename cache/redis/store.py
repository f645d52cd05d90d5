"""Redis as a tier that may help and can do no harm.

`get` and `put` never raise and never wait longer than the budget (20 ms): an outage is a miss.

Reading. All look-ups of one tick of the event loop go out as one MGET, at most 128 keys each and at
most `connections` in flight. While all are busy, further look-ups gather keys, so load makes
batches larger and not queues longer. The budget runs from a chunk's first key. When it is spent the
callers get `Lost.FAILED`, and the command runs on until its own, longer time-out: no half-read
reply is left on a connection, and a connection that takes more than 20 ms to open (TLS, another
zone) still opens for the next look-up.

A busy event loop must not look like a broken Redis. So the budget is spent in `TURNS` timed parts:
a slow turn of the loop costs one part, however long it was, and the parts are enough turns to read
a reply that is there. Every reply that comes in time starts the budget afresh, up to `MOST_TURNS`
in all: a Redis that answers is only loaded, and computing those vectors would take longer.

Recovery. The breaker doubles its wait up to 10 s, yet hits should be back within a second. So while
it is open, a background probe asks for one key every quarter of a second. A probe that failed or
was late, and then is in time, lets the next look-up try at once. A probe that was never late
changes nothing: Redis answers it, yet real look-ups time out. In a Cluster one lost shard opens the
breaker for all of it until the fail-over is done.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from typing import Any

from redis.asyncio import RedisCluster
from redis.exceptions import ResponseError

from cache.redis.address import Address, Client
from cache.redis.breaker import Breaker, Circuit
from cache.redis.reader import ClusterReader, PooledReader, Reader, Values, settle
from cache.redis.writer import Writer
from cache.trouble import SILENT as NO_ANSWER
from cache.trouble import Trouble, reason_of
from cache.watcher import SILENT, Watcher

CHUNK = 128
TURNS = 10  # a full chunk takes about six: to send it, to read it in pieces, to hand it out
MOST_TURNS = 10 * TURNS
CONNECT = 0.25  # seconds, or the budget where that is longer
STUCK = 20  # budgets until a command is given up, and its connection with it
CLOSED = Circuit.CLOSED  # a member of an enum takes three times as long to look up
PROBE = b"sl2:probe"  # never written
PROBE_EVERY = 0.25

log = logging.getLogger(__name__)


class Lost(Enum):
    """Why a look-up has no reply; `None` in its place is Redis saying that it has no such key."""

    FAILED = "error"
    SKIPPED = "bypass"


Reply = bytes | Lost | None


class Chunk:
    """Keys that travel together. Each caller waits on a future of its own, so one that leaves
    takes nothing from the others."""

    __slots__ = ("began", "due", "heard", "places", "replies", "timer", "turns", "until", "waiters")

    def __init__(self, began: float, heard: int) -> None:
        self.places: dict[bytes, int] = {}  # of the keys; one that many want travels once
        self.began = self.due = began
        self.heard = heard  # replies that had come in time when this was last looked at
        self.turns = 0
        self.until = TURNS
        self.replies: Sequence[Reply] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.waiters: list[asyncio.Future[None]] = []

    def arrive(self, replies: Sequence[Reply]) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.replies = replies
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)


class RedisStore:
    def __init__(
        self,
        url: str,
        *,
        budget: float = 0.020,
        connections: int = 8,
        ttl: float = 30 * 86_400,
        queue: int = 4096,
        watcher: Watcher = SILENT,
        clock: Callable[[], float] = time.monotonic,
        said: bytearray | memoryview | None = None,
    ) -> None:
        self._address = Address.of(url)
        self._budget = budget
        self._connections = connections
        self._watcher = watcher
        self._breaker = Breaker(clock=clock)
        self._write_breaker = Breaker(clock=clock)
        self.trouble = Trouble(watcher, said)
        self._why = NO_ANSWER  # the last look-up without an answer has none
        self._writer = Writer(self._write_breaker, self.trouble, watcher, ttl=ttl, limit=queue)
        self._pending: list[Chunk] = []
        self._heard = 0  # replies that came in time
        self._in_flight = 0
        self._reader: Reader | None = None
        self._backer: Client | None = None
        self._prober: asyncio.Task[None] | None = None

    @property
    def state(self) -> Circuit:
        return self._breaker.state

    async def start(self) -> bool:
        """Open a first connection in this process's event loop and say whether Redis answered."""
        self._loop = asyncio.get_running_loop()
        stuck, connect_timeout = STUCK * self._budget, max(CONNECT, self._budget)
        self._backer = self._address.connect(10 * self._budget, connect_timeout, connections=2)
        if isinstance(self._backer, RedisCluster):
            self._reader = ClusterReader(self._backer, self._failed_for)
        else:
            self._reader = PooledReader(self._address, stuck, connect_timeout, self._failed_for)
        self._writer.start(self._backer)
        self._watcher.breaker(self.state)
        return await self._probe()

    async def flush(self, timeout: float = 1.0) -> int:
        """Write what waits, for at most `timeout`, and say how many vectors still wait."""
        return await self._writer.flush(timeout) if self._reader else 0

    async def close(self, timeout: float = 1.0) -> None:
        await self._writer.close(timeout)
        one, other = self._reader, self._backer
        self._reader = self._backer = None
        if self._prober is not None:
            self._prober.cancel()
            await asyncio.wait({self._prober})
        if one is not None:
            await one.close()
        if other is not None:
            await other.aclose()

    async def get(self, keys: Sequence[bytes]) -> list[Reply]:
        if not keys:
            return []
        if self._reader is None or not self._may_ask():
            return [Lost.SKIPPED] * len(keys)
        replies: list[Reply] = []
        for chunk, place in [*map(self._chunk_of, keys)]:
            while chunk.replies is None:
                waiter = self._loop.create_future()
                chunk.waiters.append(waiter)
                await waiter
            replies.append(chunk.replies[place])
        return replies

    def _chunk_of(self, key: bytes) -> tuple[Chunk, int]:
        chunk = self._pending[-1] if self._pending else None
        if chunk is None or chunk.replies is not None or len(chunk.places) >= CHUNK:
            chunk = self._open_chunk()
        return chunk, chunk.places.setdefault(key, len(chunk.places))

    def _open_chunk(self) -> Chunk:
        if not self._pending:
            self._loop.call_soon(self._dispatch)
        chunk = Chunk(self._loop.time(), self._heard)
        self._pending.append(chunk)
        self._wait(chunk)
        return chunk

    def _dispatch(self) -> None:
        while self._reader is not None and self._pending and self._in_flight < self._connections:
            chunk = self._pending.pop(0)
            if chunk.replies is None:
                self._in_flight += 1
                self._reader.ask(list(chunk.places), partial(self._arrived, chunk))

    def _arrived(self, chunk: Chunk, values: Values | None) -> None:
        self._in_flight -= 1
        self._settle(chunk, values)
        self._dispatch()

    def _wait(self, chunk: Chunk) -> None:
        part = self._budget / TURNS
        # a timer that is a little late, as all are, does not make the next one later
        chunk.due = max(chunk.due + part, self._loop.time() + part / 2)
        chunk.timer = self._loop.call_at(chunk.due, self._spent, chunk)

    def _spent(self, chunk: Chunk) -> None:
        chunk.turns += 1
        if chunk.heard != self._heard:
            chunk.heard, chunk.until = self._heard, min(chunk.turns + TURNS, MOST_TURNS)
        if chunk.turns < chunk.until:
            self._wait(chunk)
        else:
            self._settle(chunk, None)

    def _settle(self, chunk: Chunk, replies: Sequence[Reply] | None) -> None:
        """The reply, or `None` for a failure or a spent budget; the first to come counts."""
        if chunk.replies is not None:
            return
        self._heard += replies is not None
        chunk.arrive([Lost.FAILED] * len(chunk.places) if replies is None else replies)
        self._watcher.lookup_seconds("redis", self._loop.time() - chunk.began)
        self._judge(replies is not None)

    def _may_ask(self) -> bool:
        if self._breaker.state is CLOSED:
            return True
        allowed = self._breaker.allow()
        if allowed:
            self._watcher.breaker(self.state)
        return allowed

    def _judge(self, well: bool) -> None:
        before = self.state
        if well:
            self._breaker.succeeded()
            if self.trouble.now:
                self._why = NO_ANSWER
                self.trouble.end("read")
        else:
            self._breaker.failed()
        if self.state is not before:
            log.info("Redis look-ups: breaker %s", self.state)
            self._watcher.breaker(self.state)
            if self.state is Circuit.OPEN:
                self.trouble.begin("read", self._why)
        idle = self._prober is None or self._prober.done()
        if self.state is Circuit.OPEN and idle and self._reader is not None:
            self._prober = self._loop.create_task(self._watch_for_return())

    def _failed_for(self, reason: str) -> None:
        """One answer that is late or lost is no trouble yet; one that says no is."""
        self._why = reason
        if reason != NO_ANSWER or self.state is not CLOSED:
            self.trouble.begin("read", reason)

    async def _watch_for_return(self) -> None:
        was_down = False
        while self.state is not Circuit.CLOSED:
            began = time.monotonic()
            if not await self._probe() or time.monotonic() - began > self._budget:
                was_down = True
            elif was_down:
                self._breaker.invite()
                self._write_breaker.invite()
                was_down = False
            await asyncio.sleep(PROBE_EVERY)

    async def _probe(self) -> bool:
        if self._reader is None:
            return False
        answered: asyncio.Future[bool] = self._loop.create_future()
        self._reader.ask([PROBE], lambda values: settle(answered, values is not None))
        return await answered

    def put(self, key: bytes, blob: bytes) -> None:
        """Queue a value to be written; return at once."""
        self._writer.put(key, blob)

    async def inspect(self) -> list[str]:
        """Sentences, fit for the public, on what will go wrong with this server as it is set up.
        Where it does not even answer, that is its `trouble`, and logged as such."""
        try:
            nodes = await _memory(self._backer)
        except ResponseError:
            return ["Redis does not let this user read its memory limit and eviction policy."]
        except Exception as error:  # of any kind: the sentence is the effect
            if not self.trouble.now:
                self.trouble.begin("read", reason_of(error))
            return self.trouble.sentences
        return _advice(nodes)


async def _memory(client: Client | None) -> list[dict[str, Any]]:
    if client is None:
        raise ConnectionError("closed")
    if isinstance(client, RedisCluster):
        info = await client.info("memory", target_nodes=RedisCluster.PRIMARIES)
    else:
        info = await client.info("memory")
    nodes = list(info.values())
    return nodes if nodes and all(isinstance(node, dict) for node in nodes) else [info]


def _advice(nodes: Sequence[dict[str, Any]]) -> list[str]:
    warnings = []
    if any(node.get("maxmemory") == 0 for node in nodes):
        warnings.append(
            "Redis has no memory limit (maxmemory 0): it grows until the machine stops it. "
            "Set maxmemory."
        )
    if any(node.get("maxmemory_policy") == "noeviction" for node in nodes):
        warnings.append(
            "Redis evicts nothing (maxmemory-policy noeviction): once full it refuses new "
            "vectors. Set maxmemory-policy allkeys-lfu."
        )
    return warnings
