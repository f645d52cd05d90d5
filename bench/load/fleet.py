"""The generator processes of a level. The parent starts them together and writes what they report.

Each runs its own event loop and is told only when to start and when to stop. The parent draws the
progress bar and writes the recording, so that neither costs a generator anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from typing import Any

import uvloop

from bench.load.generator import Generator, Order, lines
from bench.load.recording import Gauge, Recorder
from bench.rig.interrupt import Interrupt

HEAD_START = 0.05  # seconds between the order to start and the start
BEAT = 0.2  # seconds between two words of progress
GOODBYE = 5.0  # seconds for a process to end by itself
STOP = "stop"


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
                child.await_ready()
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
                    self._take(child, child.reports.recv())
            if self.interrupt.asked and not told:
                told = True
                for child in under_way:
                    if not child.gauge:
                        child.orders.send(STOP)

    def _take(self, child: _Child, message: Any) -> None:
        if isinstance(message, bytes):
            self.recorder.samples(message)
        elif isinstance(message, Gauge):
            child.gauge = message
        else:
            self.progress(message - child.sent)
            child.sent = message


class _Child:
    """One generator process, seen from the parent."""

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

    def await_ready(self) -> None:
        self.reports.recv()

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
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the parent is gone
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
    for piece in lines(generator.samples):
        reports.send(piece)
    reports.send(len(generator.samples))
    reports.send(generator.gauge)


async def _tell(generator: Generator, reports: Pipe) -> None:
    while True:
        await asyncio.sleep(BEAT)
        reports.send(len(generator.samples))
