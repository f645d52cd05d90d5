"""Load whose every answer is judged: a closed loop of clients, or an open one at a given rate.

A closed loop slows down with the server and so measures what it can do; an open loop asks on.
`fresh` is the share of questions that bypass the look-up, so that the towers have work as well.
With `retry` a client whose connection broke tries once more; that is counted apart.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Self

from bench.faults.question import AnswerKey, Question
from bench.load.connection import Address, Fault, Pool, Reply, ask_once, header
from bench.load.recording import states, timings
from bench.load.summary import percentile

PATIENCE = 150.0  # seconds; silence for longer is a lost question
PAUSE = 0.05  # seconds before a refused client of a closed loop comes back
WIDTH = 100_000  # connections: no bound, an open loop asks whatever becomes of those before
COUNTS = ("sent", "answered", "refused", "lost", "wrong", "retried", "compared")


@dataclass(slots=True)
class Tally:
    """What became of the questions of one run. Nothing is left out: sent is the sum of the rest.

        sent = answered + refused + lost      (wrong ones are among the answered)

    `refused` is a 429 that says when to come back. `lost` is everything that left the client
    without an answer it could use: a 5xx, a broken connection, silence, a 429 without that.
    """

    sent: int = 0
    answered: int = 0
    refused: int = 0
    lost: int = 0
    wrong: int = 0
    retried: int = 0  # a second try after a broken connection, where the run allows one
    compared: int = 0  # vectors held against the right ones
    seconds: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)  # for the cache alone, as the server tells
    states: Counter[str] = field(default_factory=Counter)  # of `X-Cache`
    reasons: Counter[str] = field(default_factory=Counter)

    def answer(self, seconds: float, compared: int, head: bytes) -> None:
        self.answered += 1
        self.compared += compared
        self.seconds.append(seconds)
        self.states.update(states(header(head, b"x-cache")))
        waited = timings(header(head, b"server-timing")).get("cache")
        if waited is not None:
            self.waits.append(waited / 1e3)

    def miss(self, reason: str) -> None:
        """An answer came and is not the right one."""
        self.wrong += 1
        self.reasons[reason] += 1

    def lose(self, reason: str) -> None:
        """No answer that the client could use."""
        self.lost += 1
        self.reasons[reason] += 1

    def add(self, other: Tally) -> None:
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.seconds += other.seconds
        self.waits += other.waits
        self.states += other.states
        self.reasons += other.reasons

    def quantile(self, share: float) -> float:
        """Seconds within which this share of the answers came; 0 where there were none."""
        return percentile(sorted(self.seconds), 100 * share) if self.seconds else 0.0

    @property
    def p99_ms(self) -> float:
        return 1e3 * self.quantile(0.99)

    @property
    def cache_p99_ms(self) -> float:
        """The same of the part that was spent waiting for the cache."""
        return 1e3 * percentile(sorted(self.waits), 99) if self.waits else 0.0


@dataclass
class Traffic:
    """`async with Traffic(...) as traffic:` then `flowing`, `closed` or `paced`."""

    url: str
    questions: Sequence[Question]
    key: AnswerKey
    fresh: float = field(default=0.0, kw_only=True)
    retry: bool = field(default=False, kw_only=True)
    tally: Tally = field(default_factory=Tally, init=False)

    def __post_init__(self) -> None:
        self._turned: list[Tally] = []  # some of their answers may still be under way
        self._address = Address.of(self.url)
        self._pool = Pool(self._address, WIDTH)
        self._rng = Random(1)
        self._numbers = count()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pool.close()

    def turn(self) -> Tally:
        """The tally so far; what is asked from now on goes into a new one."""
        done, self.tally = self.tally, Tally()
        self._turned.append(done)
        return done

    def whole(self) -> Tally:
        """All that was ever asked; complete once nothing is under way."""
        total = Tally()
        for tally in (*self._turned, self.tally):
            total.add(tally)
        return total

    async def closed(self, clients: int, seconds: float) -> Tally:
        """So many clients, each with one question at a time, for so long."""
        async with self.flowing(clients):
            await asyncio.sleep(seconds)
        return self.turn()

    @asynccontextmanager
    async def flowing(self, clients: int, pause: float = 0.0) -> AsyncIterator[None]:
        """Load in the background; leaving waits for the last answers."""
        stop = asyncio.Event()
        tasks = [asyncio.create_task(self._client(stop, pause)) for _ in range(clients)]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)

    async def paced(self, rate: float, seconds: float) -> Tally:
        """Questions at a steady rate, whatever becomes of those before."""
        async with self.steady(rate):
            await asyncio.sleep(seconds)
        return self.turn()

    @asynccontextmanager
    async def steady(self, rate: float) -> AsyncIterator[None]:
        """The same in the background; leaving waits for the last answers."""
        async with asyncio.TaskGroup() as group:
            feed = group.create_task(self._feed(group, rate))
            try:
                yield
            finally:
                feed.cancel()

    async def _feed(self, group: asyncio.TaskGroup, rate: float) -> None:
        began = time.monotonic()
        for number in count():
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            group.create_task(self.next(due))

    async def once_each(self) -> None:
        """Every question once, a few at a time."""
        left = iter(self.questions)

        async def client() -> None:
            for question in left:
                await self.ask(question)

        await asyncio.gather(*(client() for _ in range(4)))

    async def _client(self, stop: asyncio.Event, pause: float) -> None:
        while not stop.is_set():
            await asyncio.sleep(pause if await self.next() else PAUSE)

    async def next(self, due: float | None = None) -> bool:
        return await self.ask(self.questions[next(self._numbers) % len(self.questions)], due)

    async def ask(self, question: Question, due: float | None = None) -> bool:
        """Ask once, or twice where that is allowed; whether an answer came.

        Its time counts from when it was due, if that was said, with a first try that failed.
        """
        began = time.monotonic() if due is None else due
        tally = self.tally
        tally.sent += 1
        fresh = self._rng.random() < self.fresh
        request = question.request("no-cache" if fresh else None)
        try:
            try:
                reply = await self._pool.ask(request, PATIENCE)
            except Fault:
                if not self.retry:
                    raise
                tally.retried += 1
                reply = await ask_once(self._address, request, PATIENCE)
        except Fault as fault:
            tally.lose(str(fault))
            return False
        return self._judged(tally, question, reply, reply.done - began)

    def _judged(self, tally: Tally, question: Question, reply: Reply, seconds: float) -> bool:
        said = f"{reply.status} {reply.body[:120].decode(errors='replace')}"
        if reply.status == 429 and header(reply.head, b"retry-after").isdigit():
            tally.refused += 1
            return False
        if reply.status == 429 or reply.status >= 500:
            tally.lose(said)
            return False
        tally.answer(seconds, len(question.things) if reply.status == 200 else 0, reply.head)
        if reply.status != 200:
            tally.miss(f"{said} to a good question")
        elif not self.key.right(question, reply.head, reply.body):
            tally.miss(f"not the right vectors, {header(reply.head, b'x-cache').decode()}")
        return True
