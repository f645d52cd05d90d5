"""The generator processes of a level: each sends its share, takes samples, and watches itself.

Each runs its own event loop and is told only when to start and when to stop. The parent starts them
together, draws the progress bar and writes the recording, so that neither costs them anything.

Nothing that can wait is done while the clock runs: headers are parsed and bodies judged after the
level, the garbage collector rests, and the next request is written before it is due.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from types import FrameType
from typing import Any, Self

import uvloop

from bench.load.connection import Fault, Pool, header
from bench.load.level import WARMUP, Level
from bench.load.recording import BUSY, STOPPED, Gauge, Recorder, Sample, states, timings
from bench.load.route import Judge, Route, Shelf
from bench.load.summary import percentile
from bench.load.workload import Job, Workload

TICK = 0.010  # between two looks at the loop's lag
EARLY = 0.0005  # the loop's clock counts whole milliseconds
PATIENCE = 0.05  # longest sleep without a look at whether to stop; also the pause after a refusal
GRACE = 2.0  # for answers under way when the run is cut off
HEAD_START = 0.05  # seconds between the order to start and the start
BEAT = 0.2  # seconds between two words of progress
GOODBYE = 5.0  # seconds for a process to end by itself
STOP = "stop"
PIECE = 10_000  # samples in one message
SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
        self._turns = level.turns(order.workload.seed, order.process, order.processes)
        self._shelf = Shelf()
        self._heads: list[tuple[Sample, bytes]] = []
        self._lags: list[float] = []
        self._start = 0.0
        self._cpu = 0.0

    async def prepare(self) -> None:
        many = 1 if self._level.rate else self._places
        await self._pool.fill(many, self._order.timeout)

    async def run(self, start: float) -> None:
        """Run the level from this monotonic time on."""
        self._start = start
        await asyncio.sleep(start - time.monotonic())
        meter = asyncio.create_task(self._meter())
        began, worked = time.monotonic(), time.process_time()
        try:
            await (self._open_loop if self._level.rate else self._closed_loop)()
        finally:
            meter.cancel()
            self._pool.close()
        self._cpu = (time.process_time() - worked) / max(time.monotonic() - began, 1e-9)
        for sample, head in self._heads:
            sample.cache = states(header(head, b"x-cache"))
            sample.timings = timings(header(head, b"server-timing"))
        self._shelf.judge(Judge(unit=self._order.unit))

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

    async def _closed_loop(self) -> None:
        await self._finish([asyncio.create_task(self._place()) for _ in range(self._places)])

    async def _place(self) -> None:
        while not self._over() and (turn := next(self._turns, None)):
            job, request = self._written(turn[0])
            await self._shoot(turn[0], job, request, time.monotonic())
            if not self.samples[-1].status:
                await asyncio.sleep(PATIENCE)  # a server that is down is not worth a busy loop

    async def _open_loop(self) -> None:
        shots: set[asyncio.Task[None]] = set()
        for number, seconds in self._turns:
            job, request = self._written(number)
            due = self._start + seconds
            await self._until(due)
            if self.stopped:
                break
            shot = asyncio.create_task(self._shoot(number, job, request, due))
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

    def _written(self, number: int) -> tuple[Job, bytes]:
        order = self._order
        if order.prime and self._level.number == WARMUP:
            job = order.workload.primer(number)
        else:
            job = order.workload.job(self._level.number, number)
        return job, order.route.request(job)

    async def _shoot(self, number: int, job: Job, request: bytes, scheduled: float) -> None:
        origin = self._order.origin
        now = time.monotonic()
        sample = Sample(
            self._level.number, number, job.kind, len(job.items),
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

    async def _meter(self) -> None:
        while True:
            due = time.monotonic() + TICK
            await asyncio.sleep(TICK)
            self._lags.append(max(0.0, time.monotonic() - due))


class FleetError(Exception):
    """A generator process ended without its report."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Runs levels; `progress` is called with the number of requests that were answered since."""

    recorder: Recorder
    interrupt: Interrupt
    progress: Callable[[int], object]

    def run(self, order: Order, processes: int) -> None:
        """Run one level to its end, or to the interrupt's.

        Raises:
            FleetError: a process died.
        """
        self.recorder.level(order.level)
        orders = [replace(order, process=i, processes=processes) for i in range(processes)]
        children = [_Child(one) for one in orders]
        try:
            for child in children:
                child.reports.recv()  # it is ready
            start = time.monotonic() + HEAD_START
            for child in children:
                child.orders.send(start)
            self._listen(children)
        except (EOFError, OSError):
            if not self.interrupt.asked:
                raise FleetError("a generator process died") from None
        finally:
            for child in children:
                child.end()
        self.recorder.gauges(child.gauge for child in children if child.gauge)

    def _listen(self, children: list[_Child]) -> None:
        told = False
        while under_way := [child for child in children if not child.gauge]:
            ready = wait([child.reports for child in under_way], BEAT)
            for child in under_way:
                if child.reports in ready:
                    match child.reports.recv():
                        case bytes(lines):
                            self.recorder.samples(lines)
                        case int(sent):
                            self.progress(sent - child.sent)
                            child.sent = sent
                        case gauge:
                            child.gauge = gauge
            if self.interrupt.asked and not told:
                told = True
                for child in under_way:
                    if not child.gauge:
                        child.orders.send(STOP)


class _Child:
    def __init__(self, order: Order) -> None:
        context = multiprocessing.get_context("spawn")
        self.gauge: Gauge | None = None
        self.sent = 0
        self.reports, reporting = context.Pipe(duplex=False)
        ordered, self.orders = context.Pipe(duplex=False)
        told = (order, ordered, reporting)
        self._process = context.Process(target=generate, args=told, daemon=True)
        self._process.start()
        ordered.close()
        reporting.close()  # so that its death is the end of the pipe

    def end(self) -> None:
        """Wait for it; one that does not end is ended."""
        self.orders.close()
        self.reports.close()
        self._process.join(GOODBYE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def generate(order: Order, orders: Pipe, reports: Pipe) -> None:
    """The life of a generator process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    gc.freeze()
    gc.disable()  # a collection would be a pause that looks like the server's
    with suppress(BrokenPipeError, ConnectionResetError):  # the parent is gone
        uvloop.run(_generate(order, orders, reports))


async def _generate(order: Order, orders: Pipe, reports: Pipe) -> None:
    generator = Generator(order)
    await generator.prepare()
    reports.send("ready")
    start = orders.recv()
    loop = asyncio.get_running_loop()

    def stop() -> None:  # told to, or the parent is gone
        loop.remove_reader(orders.fileno())
        generator.stop()

    loop.add_reader(orders.fileno(), stop)  # a pipe of its own: this makes it non-blocking
    teller = asyncio.create_task(_tell(generator, reports))
    await generator.run(start)
    teller.cancel()
    for first in range(0, len(generator.samples), PIECE):
        piece = generator.samples[first : first + PIECE]
        reports.send(b"".join([one.line() for one in piece]))
    reports.send(len(generator.samples))
    reports.send(generator.gauge)


async def _tell(generator: Generator, reports: Pipe) -> None:
    while True:
        await asyncio.sleep(BEAT)
        reports.send(len(generator.samples))


class Interrupt:
    """While entered, `asked` says whether the run is to end."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {one: signal.signal(one, self._take) for one in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
