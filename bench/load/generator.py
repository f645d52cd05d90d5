"""One process's share of a level: takes turns, sends jobs, takes samples, watches itself.

Nothing that can wait is done while the clock runs: headers are parsed and bodies judged after the
level, the garbage collector rests, and the next request is written before it is due.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from bench.load.answer import Judge, Shelf
from bench.load.connection import Fault, Pool, header
from bench.load.level import WARMUP, Level, Pacer, Turn
from bench.load.recording import Gauge
from bench.load.route import Route
from bench.load.sample import BUSY, STOPPED, Sample, states, timings
from bench.load.summary import percentile
from bench.load.workload import Job, Workload

TICK = 0.010  # between two looks at the loop's lag
EARLY = 0.0005  # the loop's clock counts whole milliseconds
PATIENCE = 0.05  # longest sleep without a look at whether to stop; also the pause after a refusal
GRACE = 2.0  # for answers under way when the run is cut off


@dataclass(frozen=True, slots=True)
class Order:
    """All that a generator process needs to know. Times of samples count from `origin`."""

    route: Route
    workload: Workload
    level: Level
    origin: float = field(default_factory=time.monotonic)
    process: int = 0
    processes: int = 1
    timeout: float = 30.0
    prime: bool = False  # a warm-up that sends the popular universe
    unit: bool = True  # vectors must have length 1


class Generator:
    """Runs an order. `samples` and `gauge` are whole once `run` is over."""

    def __init__(self, order: Order) -> None:
        level = order.level
        self.samples: list[Sample] = []
        self.stopped = False
        self._order = order
        self._level = level
        self._places = level.share(order.process, order.processes)
        self._pool = Pool(order.route.address, self._places)
        self._turns = Pacer(level, order.workload.seed).turns(order.process, order.processes)
        self._shelf = Shelf()
        self._heads: list[tuple[Sample, bytes]] = []
        self._lags: list[float] = []
        self._start = 0.0
        self._cpu = 0.0

    async def prepare(self) -> None:
        """Connect before the clock starts."""
        many = 1 if self._level.rate else self._places
        await self._pool.fill(many, self._order.timeout)

    async def run(self, start: float) -> None:
        """Run the level from this monotonic time on."""
        self._start = start
        await asyncio.sleep(start - time.monotonic())
        meter = asyncio.create_task(self._meter())
        began, worked = time.monotonic(), time.process_time()
        try:
            await (self._open_loop() if self._level.rate else self._closed_loop())
        finally:
            meter.cancel()
            self._pool.close()
        self._cpu = (time.process_time() - worked) / max(time.monotonic() - began, 1e-9)
        self._digest()

    def stop(self) -> None:
        """Send nothing more; what is under way gets a moment to be answered."""
        self.stopped = True

    @property
    def gauge(self) -> Gauge:
        lags = sorted(self._lags) or [0.0]
        return Gauge(
            level=self._level.number,
            process=self._order.process,
            cpu=round(self._cpu, 4),
            lag_p99_ms=round(percentile(lags, 99) * 1e3, 3),
            lag_max_ms=round(lags[-1] * 1e3, 3),
            connections=self._pool.opened,
            checked=len(self._shelf),
            check_stride=self._shelf.stride,
        )

    # -- the two loops -------------------------------------------------------------------------

    async def _closed_loop(self) -> None:
        await self._finish([asyncio.create_task(self._place()) for _ in range(self._places)])

    async def _place(self) -> None:
        while not self._over() and (turn := next(self._turns, None)):
            job, request = self._written(turn)
            await self._shoot(turn, job, request, time.monotonic())
            if not self.samples[-1].status:
                await asyncio.sleep(PATIENCE)  # a server that is down is not worth a busy loop

    async def _open_loop(self) -> None:
        shots: set[asyncio.Task[None]] = set()
        for turn in self._turns:
            job, request = self._written(turn)
            due = self._start + turn.due
            await self._until(due)
            if self.stopped:
                break
            shot = asyncio.create_task(self._shoot(turn, job, request, due))
            shots.add(shot)
            shot.add_done_callback(shots.discard)
        await self._finish(list(shots))

    async def _until(self, due: float) -> None:
        while (wait := due - time.monotonic()) > EARLY and not self.stopped:
            await asyncio.sleep(min(wait, PATIENCE))

    async def _finish(self, tasks: list[asyncio.Task[None]]) -> None:
        """Wait for the tasks; once stopped, only for a moment."""
        pending = set(tasks)
        while pending and not self.stopped:
            _, pending = await asyncio.wait(pending, timeout=PATIENCE * 4)
        if pending:
            _, pending = await asyncio.wait(pending, timeout=GRACE)
        for task in pending:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

    def _over(self) -> bool:
        seconds = self._level.duration
        return self.stopped or (seconds > 0 and time.monotonic() - self._start >= seconds)

    # -- one request ---------------------------------------------------------------------------

    def _written(self, turn: Turn) -> tuple[Job, bytes]:
        order = self._order
        prime = order.prime and self._level.number == WARMUP
        made = order.workload.primer if prime else self._job
        job = made(turn.number)
        return job, order.route.request(job)

    def _job(self, number: int) -> Job:
        return self._order.workload.job(self._level.number, number)

    async def _shoot(self, turn: Turn, job: Job, request: bytes, scheduled: float) -> None:
        origin = self._order.origin
        now = time.monotonic()
        sample = Sample(
            self._level.number, turn.number, job.kind, len(job.items),
            scheduled - origin, now - origin, None, now - origin,
        )  # fmt: skip
        try:
            await self._ask(sample, request)
        except Fault as fault:
            sample.error = str(fault)
            sample.done = time.monotonic() - origin
        except asyncio.CancelledError:
            sample.error = STOPPED
            sample.done = time.monotonic() - origin
            raise
        finally:
            self.samples.append(sample)

    async def _ask(self, sample: Sample, request: bytes) -> None:
        origin, timeout = self._order.origin, self._order.timeout
        connection = await self._pool.take(timeout)
        try:
            sample.sent = time.monotonic() - origin
            reply = await connection.ask(request, timeout)
        finally:
            self._pool.give(connection)
        sample.first_byte = reply.first_byte - origin
        sample.done = reply.done - origin
        sample.status = reply.status
        sample.size = len(reply.body)
        self._heads.append((sample, reply.head))
        if reply.status == 200:
            self._shelf.put(sample, reply.head, reply.body)
        elif reply.status != BUSY:
            sample.error = f"status {reply.status}"

    # -- around it -----------------------------------------------------------------------------

    async def _meter(self) -> None:
        while True:
            due = time.monotonic() + TICK
            await asyncio.sleep(TICK)
            self._lags.append(max(0.0, time.monotonic() - due))

    def _digest(self) -> None:
        for sample, head in self._heads:
            sample.cache = states(header(head, b"x-cache"))
            sample.timings = timings(header(head, b"server-timing"))
        self._shelf.judge(Judge(unit=self._order.unit))


def lines(samples: list[Sample], most: int = 10_000) -> Iterator[bytes]:
    """The samples as lines of a recording, in pieces."""
    for first in range(0, len(samples), most):
        yield b"".join([one.line() for one in samples[first : first + most]])
