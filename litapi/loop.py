"""The worker's loop: fetch ∥ decode ∥ predict ∥ send, in place of LitServe's one after another.

    fetch threads ─► decode threads ─► ready items ─► predict (main thread) ─► send thread
         ▲                                  │
         └── wait while enough is ready ────┘   so that idle workers get the rest of the queue

Where a worker serves both classes, each has a fetch thread, and interactive work goes first at the
decode threads and at the model (docs/architecture.md, Classes).

A change of threads costs time, so short ways are taken where nothing waits behind: a fetch thread
decodes a single text itself, and an idle model's thread sends its reply itself. A job that nobody
waits for is dropped until its decoding begins. Where cores are scarce the model goes before
decoding, or everything under way would be late.
A batch takes items of any request up to a budget of cost (tokens or patches): the first ready one,
and those of similar cost. It never waits for more while the device is idle. On a device that works
asynchronously the next batch is begun before the last one is read back, if as much is ready. An
item that fails in decoding or in the model fails alone: a batch that raised is computed again item
by item. A thread that dies ends the process: a silently hanging worker is worse than a replaced
one.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from litserve.loops.base import LitLoop

from litapi.errors import DeadlineExceeded, ItemError, ItemInternal
from litapi.messages import Job, JobId, Reply
from litapi.metrics import BatchMetrics
from litapi.towers import Decoded, Embedded, Group, Part, Tower
from litapi.transport.port import PortClosed, WorkerPort
from litapi.transport.vitals import BEAT, Urgent

log = logging.getLogger("siglit.loop")
T = TypeVar("T")

YIELDING = 3  # niceness of decode threads: a third of the core that they share with the model
AHEAD = 3  # how many batches' worth of cost a worker may hold
AHEAD_BYTES = 32 << 20  # of what is not decoded yet, after which no more is fetched
SPARE = 16  # part of the budget that may be padding: it costs less than another batch
SHORT = 0.03  # seconds of a bulk batch while there is interactive work; an item at least
LONG = 0.1  # and of one while there is none, which may come at any time
RECENT = 1.0  # seconds after which the last interactive work counts as long ago
STARVING = 5.0  # seconds without a bulk batch, after which waiting bulk goes first
LOOK = 2e-3  # seconds between two looks whether a neighbour still has interactive work
SMOOTHING = 0.2  # weight of the newest batch in the measured seconds a token or patch


@dataclass(slots=True, eq=False)
class Ticket:
    """A job in this worker, filling up row by row."""

    job_id: JobId
    deadline: float
    sent: float
    bulk: bool  # it goes behind interactive work; false in a worker that serves bulk alone
    rows: list[Embedded | ItemError | None]
    missing: int
    decode_seconds: float = 0.0  # of the part that took longest: parts decode side by side
    infer_seconds: float = 0.0  # of all batches that held an item of this job


@dataclass(slots=True, eq=False)
class Ready:
    ticket: Ticket
    index: int
    decoded: Decoded


@dataclass(slots=True, eq=False)
class Flight:
    """A batch that the model has begun, and how to wait for the rows of what is not late in it."""

    batch: list[Ready]
    alive: list[Ready]
    began: float
    collect: Callable[[], list[Embedded | ItemError]]


class Shelf:
    """Decoded items between decode threads and the model, with the cost of all on its way. `depth`
    batches may be under way in the model."""

    def __init__(self, budget: int, urgent: Urgent | None = None, depth: int = 1) -> None:
        self.changed = threading.Condition()
        self.items: tuple[deque[Ready], deque[Ready]] = deque(), deque()  # interactive, bulk
        self.held = [0, 0]  # cost of items fetched and not yet predicted, by class
        self.encoded = [0, 0]  # bytes of items fetched and not yet decoded, by class
        self.closed = False
        self._budget, self._depth = budget, depth
        self._urgent = urgent or Urgent([0], 0, ())  # alone: there is no neighbour
        self._pace = 0.0  # seconds a token or patch
        self._interactive = -RECENT  # when there was interactive work last
        self._bulk = 0.0  # since when no bulk batch was taken though bulk waits

    def reserve(self, cost: int, size: int = 0, bulk: bool = False) -> None:
        """Wait until there is room, then count `cost` as held, and `size` bytes as not decoded."""
        with self.changed:
            self.changed.wait_for(lambda: self._has_room(bulk))
            self.held[bulk] += cost
            self.encoded[bulk] += size

    def _has_room(self, bulk: bool) -> bool:
        ahead = (AHEAD + self._depth - 1) * self._budget_of(bulk)
        return self.held[bulk] < ahead and self.encoded[bulk] < AHEAD_BYTES

    def add(self, items: list[Ready], estimate: int, size: int = 0, bulk: bool = False) -> None:
        """Put decoded items down; their true cost replaces what was reserved for them."""
        with self.changed:
            self.encoded[bulk] -= size
            self.held[bulk] += sum(item.decoded.cost for item in items) - estimate
            if bulk and items and not self.items[1]:
                self._bulk = time.monotonic()
            self.items[bulk].extend(items)
            if items and not bulk:
                self._urgent.say(True)
            self.changed.notify_all()

    def take(self, under_way: int = 0) -> list[Ready]:
        """The next batch: at least one item, then as many of its class as the budget allows.

        Empty where a batch of the cost `under_way` is in the model and it is too early for another.
        Raises PortClosed where none is left and none will come.
        """
        with self.changed:
            if under_way and not self._is_due(under_way):
                return []
            self.changed.wait_for(lambda: any(self.items) or self.closed)
            if not any(self.items):
                raise PortClosed
            while (bulk := self._bulk_next()) is None:
                self.changed.wait(LOOK)
            if bulk:
                self._bulk = time.monotonic()
            else:
                self._interactive = time.monotonic()
                self._urgent.say(True)
            return self._batch(self.items[bulk], self._budget_of(bulk))

    def _is_due(self, under_way: int) -> bool:
        """Whether as much is ready: a smaller batch would keep out what comes until its turn. Bulk
        never is while there is interactive work, which would wait for both."""
        bulk = self._bulk_next()
        if bulk is None or (bulk and self._recent()):
            return False
        return _cost(self.items[bulk]) >= min(under_way, self._budget_of(bulk))

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def release(self, batch: list[Ready], seconds: float = 0.0) -> None:
        """Count a predicted batch, which took so long, as gone."""
        cost, bulk = _cost(batch), batch[0].ticket.bulk
        with self.changed:
            if not bulk:
                self._interactive = time.monotonic()
                self._urgent.say(bool(self.items[0]))
            if seconds and cost:
                change = seconds / cost - self._pace
                self._pace += (SMOOTHING if self._pace else 1.0) * change
            self.held[bulk] -= cost
            self.changed.notify_all()

    def _bulk_next(self) -> bool | None:
        """Whether the next batch is bulk; None: neither now, a neighbour goes first."""
        if not self.items[1]:
            return False
        if time.monotonic() - self._bulk > STARVING:
            return True
        if self.items[0]:
            return False
        return None if self._urgent.elsewhere() else True

    def _budget_of(self, bulk: bool) -> int:
        """Of a batch. One of bulk takes a short time, so that interactive work may come between."""
        if not bulk or not self._pace:
            return self._budget
        seconds = SHORT if self._recent() else LONG / self._depth
        return max(1, min(self._budget, int(seconds / self._pace)))

    def _recent(self) -> bool:
        return time.monotonic() - self._interactive < RECENT

    def _batch(self, items: deque[Ready], budget: int) -> list[Ready]:
        """The first, so none starves, and others of like cost: all are padded to the tallest."""
        first, spare = items[0].decoded.cost, self._budget // SPARE
        batch, tallest, useful = list[Ready](), 0, 0
        for one in sorted(items, key=lambda one: abs(one.decoded.cost - first)):
            cost, count = one.decoded.cost, len(batch) + 1
            if batch and tallest * count > budget:
                break
            padded = max(tallest, cost) * count
            if not batch or (padded <= budget and padded - useful - cost <= spare):
                batch.append(one)
                tallest, useful = max(tallest, cost), useful + cost
        taken = set(batch)
        rest = [one for one in items if one not in taken]
        items.clear()
        items.extend(rest)
        return batch


LAST = 2  # in the order of decoding, after interactive work and bulk


def _close() -> None:
    raise PortClosed


class Decoders:
    def __init__(self, threads: int) -> None:
        self._work: queue.PriorityQueue[tuple[int, int, Callable[[], None]]]
        self._work = queue.PriorityQueue()
        self._numbers = itertools.count()
        ends = functools.partial(_or_die, self._take_turns)
        self._threads = [threading.Thread(target=ends, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, bulk: bool, work: Callable[[], None]) -> None:
        self._work.put((bulk, next(self._numbers), work))

    def close(self) -> None:
        for _ in self._threads:
            self._work.put((LAST, next(self._numbers), _close))
        for thread in self._threads:
            thread.join()

    def _take_turns(self) -> None:
        _yield()
        while True:
            self._work.get()[2]()  # no name keeps a job while the next is waited for


class PipelinedLoop(LitLoop):
    """LitServe's loop interface over a `Pipeline`."""

    def pre_setup(self, lit_api: Any, spec: Any = None) -> None:
        """Nothing to check: the hooks of a `Tower` are what this loop calls."""

    def run(
        self,
        lit_api: Tower,
        device: str,
        worker_id: int,
        request_queue: Any,
        transport: Any,
        workers_setup_status: Any,
        callback_runner: Any,
    ) -> None:
        del device, workers_setup_status, callback_runner
        jobs = lit_api.channels(request_queue)
        port = WorkerPort(worker_id, jobs, transport, lit_api.ledger)
        alone = len(jobs) == 1  # in its class: the kernel decides between it and the others
        Pipeline(lit_api, port, None if alone else lit_api.urgency[worker_id]).run()


class Pipeline:
    def __init__(self, tower: Tower, port: WorkerPort, urgent: Urgent | None = None) -> None:
        self._tower = tower
        self._port = port
        self._shelf = Shelf(tower.budget, urgent, tower.depth)
        self._flights: deque[Flight] = deque()
        self._free = 0.0  # since when the model has not been at the batch that ended last
        self._decoders = Decoders(tower.decode_threads)
        self._done: queue.SimpleQueue[list[Ticket] | None] = queue.SimpleQueue()
        self._metrics = BatchMetrics(tower.kind)
        self._fetching = port.lanes  # threads

    def run(self) -> None:
        """Predict in this thread, everything else in others, until the port is closed."""
        fetches = [functools.partial(self._fetch, lane) for lane in range(self._fetching)]
        for stage in (*fetches, self._send, self._beat):
            threading.Thread(target=_or_die, args=(stage,), daemon=True).start()
        _or_die(self._predict)
        self._done.put(None)

    def _beat(self) -> None:
        while not self._shelf.closed:
            self._tower.beat()
            time.sleep(BEAT)

    def _fetch(self, lane: int) -> None:
        try:
            while True:
                self._take(self._port.fetch(lane), lane > 0)  # no name keeps a job meanwhile
        except PortClosed:
            with self._shelf.changed:
                self._fetching -= 1
                last = not self._fetching
            if last:
                self._decoders.close()
                self._shelf.close()

    def _take(self, job: Job, bulk: bool) -> None:
        count = len(job.items)
        ticket = Ticket(job.id, job.deadline, job.sent, bulk, [None] * count, count)
        if not count:
            self._done.put([ticket])
        for part in self._tower.parts(job):
            self._shelf.reserve(part.estimate, part.size, bulk)
            if part.quick:
                self._decode(ticket, part)
            else:
                self._decoders.submit(bulk, functools.partial(self._decode, ticket, part))

    def _decode(self, ticket: Ticket, part: Part) -> None:
        began = time.monotonic()
        if began >= ticket.deadline or not self._port.begin(ticket.job_id):
            decoded: Group = [DeadlineExceeded() for _ in part.job.items]
        else:
            self._tower.about(ticket.job_id, part.start)
            decoded = self._tower.decode_request(part.job)
        now = time.monotonic()
        ticket.decode_seconds = max(ticket.decode_seconds, now - began)
        ready = []
        for index, one in enumerate(decoded, part.start):
            if isinstance(one, ItemError):
                self._finish([(ticket, index, one)])
            else:
                ready.append(Ready(ticket, index, one))
        self._shelf.add(ready, part.estimate, part.size, ticket.bulk)

    def _predict(self) -> None:
        flights = self._flights
        while True:
            batch: list[Ready] = []
            if len(flights) < self._tower.depth:
                batch = self._shelf.take(_cost(flights[0].batch) if flights else 0)
            if batch:
                flights.append(self._begun(batch))
            else:
                self._end(flights.popleft())

    def _begun(self, batch: list[Ready]) -> Flight:
        now = time.monotonic()
        late = [r for r in batch if now >= r.ticket.deadline]
        if late:
            self._finish([(r.ticket, r.index, DeadlineExceeded()) for r in late])
        alive = [r for r in batch if r not in late] if late else batch
        collect = self._tried(functools.partial(self._submit, alive), alive) if alive else list
        return Flight(batch, alive, now, collect or functools.partial(self._apart, alive))

    def _end(self, flight: Flight) -> None:
        alive = flight.alive
        rows = self._tried(flight.collect, alive)
        if rows is None:
            rows = self._apart(alive)
        now = time.monotonic()
        self._tower.pulse(now if self._flights else 0.0)
        spent, self._free = now - max(flight.began, self._free), now
        for ticket in {id(r.ticket): r.ticket for r in alive}.values():
            ticket.infer_seconds += spent
        self._finish([(r.ticket, r.index, row) for r, row in zip(alive, rows, strict=True)])
        self._shelf.release(flight.batch, spent if len(alive) == len(flight.batch) else 0.0)

    def _tried(self, half: Callable[[], T], batch: list[Ready]) -> T | None:
        """One half of a batch; None where it failed, and nothing of it is held any more."""
        try:
            return half()
        except Exception as error:
            if _is_broken(error):
                raise  # and end: a worker that starts anew gets these items
            log.exception("a batch of %d failed; a larger one is computed item by item", len(batch))
        self._tower.relieve()  # only here: what the batch took hung on the error
        return None

    def _submit(self, batch: list[Ready]) -> Callable[[], list[Embedded | ItemError]]:
        tower = self._tower
        self._metrics.observe(len(batch), _cost(batch))
        tower.pulse(time.monotonic())
        collect = tower.submit(tower.batch([[ready.decoded for ready in batch]]))
        return lambda: collect()[0]

    def _apart(self, batch: list[Ready]) -> list[Embedded | ItemError]:
        return [self._alone([ready]) for ready in batch]

    def _alone(self, batch: list[Ready]) -> Embedded | ItemError:
        rows = self._tried(lambda: self._submit(batch)(), batch)
        return rows[0] if rows else ItemInternal()

    def _finish(self, rows: Sequence[tuple[Ticket, int, Embedded | ItemError]]) -> None:
        whole = []
        with self._shelf.changed:  # decode threads and the model finish rows of one ticket
            for ticket, index, row in rows:
                ticket.rows[index] = row
                ticket.missing -= 1
                if ticket.missing == 0:
                    whole.append(ticket)
            idle = not any(self._shelf.items)
        if whole and idle:
            self._reply(whole)
        elif whole:
            self._done.put(whole)

    def _send(self) -> None:
        while tickets := self._done.get():
            self._reply(tickets)

    def _reply(self, tickets: Sequence[Ticket]) -> None:
        self._port.send([(ticket.job_id, self._written(ticket)) for ticket in tickets])

    def _written(self, ticket: Ticket) -> Reply:
        rows = [row for row in ticket.rows if row is not None]
        reply: Reply = self._tower.encode_response(rows)
        reply.decode_seconds = ticket.decode_seconds
        reply.infer_seconds = ticket.infer_seconds
        whole = time.monotonic() - ticket.sent
        reply.queue_seconds = max(0.0, whole - ticket.decode_seconds - ticket.infer_seconds)
        return reply


def _cost(batch: Iterable[Ready]) -> int:
    return sum(ready.decoded.cost for ready in batch)


def _is_broken(error: Exception) -> bool:
    """Whether the device failed and not the work: whatever this process asks of it fails from now
    on. Memory that torch could not get is no such failure, and says "out of memory" otherwise."""
    return type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error)


def _yield() -> None:
    """Let the model's thread, and the event loop, go first. Only Linux has this for a thread."""
    with contextlib.suppress(OSError):
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, 0) + YIELDING)


def _or_die(stage: Callable[..., None], *args: Any) -> None:
    try:
        stage(*args)
    except PortClosed:
        return
    except BaseException:
        log.exception("a stage of the worker failed; ending the worker")
        os._exit(1)
