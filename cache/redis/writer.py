"""Write-behind: requests queue their vectors and do not wait for Redis.

The queue is bounded (4 096) and drops its oldest: the newest vectors are the likeliest to be asked
for. A batch goes out at 64 entries or 50 ms after the first, as one pipeline of SET EX. Lives are
30 days ± 10 %, so what was written together does not expire together. A batch that met an outage
returns to the head of the queue (writing twice is harmless); one that Redis refused (full, not
permitted) is dropped and counted. The writer has its own breaker: a write may take 10 times as long
as a look-up, so a write that succeeds does not show that look-ups are quick again.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import TimeoutError as TimedOut

from cache.redis.address import Client
from cache.redis.breaker import Breaker
from cache.trouble import SILENT as NO_ANSWER
from cache.trouble import Trouble, reason_of
from cache.watcher import Watcher

BATCH = 64
LINGER = 0.05  # seconds
JITTER = 0.1  # of a life
PAUSE = 0.1  # how often a writer behind an open breaker looks whether it may go on

Item = tuple[bytes, bytes]


class Writer:
    def __init__(
        self, breaker: Breaker, trouble: Trouble, watcher: Watcher, *, ttl: float, limit: int
    ) -> None:
        self._breaker = breaker
        self._trouble = trouble
        self._watcher = watcher
        self._ttl = ttl
        self._limit = limit
        self._queue: deque[Item] = deque()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._queue)

    def start(self, client: Client) -> None:
        self._client = client
        self._due = asyncio.Event()
        self._sending = asyncio.Lock()
        self._task = asyncio.create_task(self._run())

    def put(self, key: bytes, blob: bytes) -> None:
        if self._task is None:
            self._watcher.dropped(1)
            return
        self._queue.append((key, blob))
        self._drop_oldest()
        if len(self._queue) == 1:
            asyncio.get_running_loop().call_later(LINGER, self._due.set)
        elif len(self._queue) >= BATCH:
            self._due.set()
        self._watcher.queue(len(self._queue))

    def _drop_oldest(self) -> None:
        over = len(self._queue) - self._limit
        for _ in range(over):
            self._queue.popleft()
        if over > 0:
            self._watcher.dropped(over)

    async def _run(self) -> None:
        # also ends where redis-py, which had just connected, swallows the cancellation
        while self._task is not None:
            await self._due.wait()
            self._due.clear()
            while self._queue and self._task is not None:
                if self._breaker.allow():
                    await self._write_batch()
                else:
                    await asyncio.sleep(PAUSE)

    async def _write_batch(self) -> bool:
        """Send up to 64 entries and say whether Redis took notice of them."""
        async with self._sending:
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            if not batch:
                return True
            try:
                replies = await self._send(batch)
            except BaseException as error:
                self._queue.extendleft(reversed(batch))
                self._drop_oldest()
                if not isinstance(error, Exception):
                    raise
                self._blame(error)  # whatever went wrong, the request is long answered
                self._breaker.failed()
                return False
        self._book(replies)
        return True

    async def _send(self, batch: Sequence[Item]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for key, blob in batch:
                pipe.set(key, blob, ex=self._life())
            replies = await pipe.execute(raise_on_error=False)
        for reply in replies:  # a cluster reports a lost node as replies
            if isinstance(reply, NotConnected | TimedOut | OSError):
                raise reply
        return replies

    def _life(self) -> int:
        return max(1, round(self._ttl * random.uniform(1 - JITTER, 1 + JITTER)))

    def _blame(self, error: Exception) -> None:
        """Where Redis does not answer at all, those who look up say so."""
        if (reason := reason_of(error)) != NO_ANSWER:
            self._trouble.begin("write", reason)

    def _book(self, replies: Sequence[Any]) -> None:
        errors = [reply for reply in replies if isinstance(reply, Exception)]
        refused = len(errors)
        if refused:
            self._watcher.dropped(refused)
            self._blame(errors[0])
        else:
            self._trouble.end("write")
        if refused < len(replies):
            self._watcher.written(len(replies) - refused)
            self._breaker.succeeded()
        else:  # a full Redis refuses everything: no use in offering it every vector
            self._breaker.failed()
        self._watcher.queue(len(self._queue))

    async def flush(self, timeout: float = 1.0) -> int:
        """Write what waits, for at most `timeout`, and say how many still wait."""
        with suppress(TimeoutError):  # what is left is the answer
            async with asyncio.timeout(timeout):
                while self._queue or self._sending.locked():
                    if not await self._write_batch():
                        break
        if self._queue:
            self._due.set()
        return len(self._queue)

    async def close(self, timeout: float = 1.0) -> None:
        if self._task is None:
            return
        try:
            await self.flush(timeout)
        finally:  # also where the closing itself is cancelled
            task, self._task = self._task, None
            task.cancel()
        await asyncio.wait({task})
        if self._queue:
            self._watcher.dropped(len(self._queue))
            self._queue.clear()
        self._watcher.queue(0)
