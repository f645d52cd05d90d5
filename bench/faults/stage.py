"""The servers that the rows of the fault table are played on, each started when first needed.

Rows that leave a server as it was share it; a row that ends its server takes it out of the shared
ones. One event loop plays all rows, so that the proxy before Redis lives as long as they need it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import cached_property
from typing import TypeVar

from bench.faults.question import (
    AnswerKey,
    Question,
    alone,
    drawn_pictures,
    drawn_texts,
    mixed,
    photographs,
)  # fmt: skip
from bench.faults.traffic import PATIENCE, Traffic
from bench.load.connection import Address, Fault, Reply, ask_once, head_of
from bench.rig.fault_proxy import FaultProxy
from bench.rig.redis_server import RedisServer
from bench.rig.server_process import ServerProcess

T = TypeVar("T")
# A long deadline: on a slow machine an item that kills three workers takes minutes to be found out.
COMMON = ("--test-hooks", "on", "--image-urls", "any-public", "--timeout", "120")
HASTY = ("--header-timeout", "3", "--body-timeout", "3")  # the short form does not wait for 5 s
SMALL_QUEUE = ("--max-wait", "1")
IMPATIENT = ("--test-hooks", "on", "--hang-timeout", "2", "--timeout", "5")


class Stage(AsyncExitStack):
    """`async with Stage(long=False) as stage:` and whatever was started ends with it."""

    def __init__(self, long: bool) -> None:
        super().__init__()
        self.long = long
        self._servers: dict[tuple[str, ...], ServerProcess] = {}
        self._keys: defaultdict[str, AnswerKey] = defaultdict(AnswerKey)  # by server
        self._redis: tuple[RedisServer, FaultProxy] | None = None
        self.idle: dict[str, dict[int, float]] = {}  # server → process → MB before all attacks

    def of(self, long: T, short: T) -> T:
        """The one or the other, by the form that is played."""
        return long if self.long else short

    async def common(self) -> ServerProcess:
        return await self.server(*COMMON, *self.of((), HASTY))

    async def server(self, *flags: str) -> ServerProcess:
        if flags not in self._servers:
            server = ServerProcess(*flags)
            await asyncio.to_thread(server.start)
            self.push_async_callback(asyncio.to_thread, server.stop)
            self._servers[flags] = server
        return self._servers[flags]

    async def spent(self, *flags: str) -> ServerProcess:
        """The same for a row that ends it: no other row gets it afterwards."""
        await self.server(*flags)
        return self._servers.pop(flags)

    async def redis(self) -> tuple[RedisServer, FaultProxy]:
        """A Redis, and the proxy before it."""
        if self._redis is None:
            redis = await asyncio.to_thread(RedisServer)
            self.callback(redis.close)
            proxy = await self.enter_async_context(FaultProxy(redis.url))
            self._redis = redis, proxy
        return self._redis

    async def behind(self, redis: RedisServer | FaultProxy) -> ServerProcess:
        """A server whose every look-up goes to Redis."""
        return await self.server("--memory-cache-mb", "0", "--redis-url", redis.url)

    @cached_property
    def questions(self) -> list[Question]:
        """Small texts and pictures in every way of asking."""
        return mixed(drawn_texts(120), drawn_pictures(24))

    @cached_property
    def heavy(self) -> list[Question]:
        """Large pictures only: the server's work outweighs the client's a hundred times."""
        return [alone([picture]) for picture in photographs(8)]

    async def traffic(
        self,
        server: ServerProcess,
        questions: Sequence[Question] | None = None,
        *,
        fresh: float = 0.0,
        retry: bool = False,
    ) -> Traffic:
        """Load for a server, with the right answers to it computed now."""
        chosen = self.questions if questions is None else questions
        key = self._keys[server.url]
        await key.learn(server.url, (thing for question in chosen for thing in question.things))
        return Traffic(server.url, chosen, key, fresh=fresh, retry=retry)


async def post(
    url: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
    patience: float = PATIENCE,
) -> Reply:
    """The answer to a request over a connection of its own. Raises Fault where there is none."""
    head = head_of(path, len(body), headers or {}, method)
    return await ask_once(Address.of(url), head + body, patience)


async def ask(url: str, question: Question) -> Reply:
    """The same of a question."""
    return await ask_once(Address.of(url), question.request(), PATIENCE)


async def ready(url: str) -> bool:
    with contextlib.suppress(Fault):
        return (await post(url, "/readyz", method="GET", patience=5.0)).status == 200
    return False


async def counter(url: str, name: str, *labels: str) -> float:
    """The sum of a metric over the series that carry all these labels, as in `tier="redis"`."""
    lines = (await post(url, "/metrics", method="GET")).body.decode().splitlines()
    found = [line for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
    return sum(float(line.rpartition(" ")[2]) for line in found if all(x in line for x in labels))


async def until(holds: Callable[[], Awaitable[bool]], within: float, every: float = 0.1) -> float:
    """Seconds until something holds. Raises TimeoutError where it does not within so many."""
    began = time.monotonic()
    while not await holds():
        if time.monotonic() > began + within:
            raise TimeoutError(f"not {holds.__name__} within {within:.0f} s")
        await asyncio.sleep(every)
    return time.monotonic() - began
