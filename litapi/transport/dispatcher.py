"""An HTTP process's end of the queues: submit jobs, await replies, resubmit a lost worker's jobs.

Nothing is lost: a worker notes in the `Ledger` that it holds a job as soon as it does, so the jobs
of a dead worker are known. A job that a worker took and could not note before it died belongs to
nobody; the queue is first in, first out, so a probe that comes through shows which earlier jobs
were swallowed. Embeddings are idempotent, so sending one twice is harmless.

Jobs that a worker had begun when it died are suspects. Suspects are retried item by item and one at
a time, so the next crash identifies the item, and it is quarantined. If the worker had begun other
jobs too, that crash proves nothing yet, and one more is needed.

A worker that was replaced because an item took too long to decode names that item. The item is
refused, and the other jobs of that worker are sent again; they are no suspects.

A job that nobody waits for any more is forgotten here at once, and its slot in the ledger tells the
workers to drop it. A job that a worker has begun is finished.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from litapi.errors import (
    DeadlineExceeded,
    ImageTooSlow,
    ItemError,
    ItemQuarantined,
    ServiceError,
    WorkerLost,
)
from litapi.keys import Key
from litapi.messages import NO_ID, Job, JobId, Kind, Reply, joined
from litapi.transport.channel import INLINE_BYTES, Channel, Parcel
from litapi.transport.ledger import Ledger
from litapi.transport.port import REPLIES

log = logging.getLogger("siglit.dispatcher")

BURST = 64  # messages that are read before other work of the event loop gets its turn
GRACE = 0.5  # seconds past the deadline in which a worker's own answer may still arrive
SUSPECT = 2  # workers that died with a job in hand, though none had begun with it: once is chance
PROVEN = 3  # workers that died with a job, whatever else they had begun with
PROBE_PATIENCE = 600.0  # seconds: a probe may wait for a worker to be loaded again
# Control messages.
LOST = "LOST"  # a worker of a tower died, or was replaced because of some slow items
KEYS = "KEYS"  # the API keys, read again
LIVE = "LIVE"  # each tower's ready workers, without bulk's; whether it lacks none
Lanes = tuple[Channel, Channel]  # to one tower: of interactive jobs, of bulk


@dataclass(slots=True, eq=False)
class Pending:
    """A job under way, as its HTTP process knows it."""

    kind: Kind
    job: Job
    future: asyncio.Future[Reply]
    losses: int = 0  # how many workers died with it
    held: bool = False  # it waits until no other suspect is under way
    alone: bool = False  # no other suspect is
    parcels: list[Parcel] = field(default_factory=list)  # its messages, where they are large

    def give_up(self, error: Exception) -> None:
        """Tell its caller why there is no reply, unless it was told something before."""
        if not self.future.done():
            self.future.set_exception(error)


class TookTooLong(Exception):
    """A worker was replaced because of one item of a job, its argument."""


class Dispatcher:
    """Submits jobs to the towers of this server and awaits their replies, in one event loop."""

    def __init__(
        self, queues: Mapping[str, Lanes], inbox: Channel, process: int, ledger: Ledger
    ) -> None:
        self._queues = queues
        self._inbox = inbox
        self._slots = ledger.slots(process)
        self._pending: dict[JobId, Pending] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # the event loop holds tasks only weakly
        self._lanes = {kind: asyncio.Lock() for kind in queues}  # each for one suspect at a time
        self._whole = dict.fromkeys(queues, 0.0)  # tower → since when it lacks no worker
        self.live: dict[str, int] = {}  # tower → workers that are ready, once told
        self.on_keys: Callable[[Sequence[Key]], None] | None = None

    def start(self) -> None:
        """Begin to receive, in the running event loop."""
        asyncio.get_running_loop().add_reader(self._inbox.fileno(), self._receive)

    def oldest(self, kind: Kind) -> float:
        """Seconds for which the oldest interactive job of this process has been under way."""
        mine = (p.job for p in self._pending.values() if p.kind == kind and p.job.items)
        sent = [job.sent for job in mine if not job.bulk]
        return max(0.0, time.monotonic() - min(sent)) if sent else 0.0

    def whole_since(self, kind: Kind) -> float:
        """Since when the tower lacks no worker, on the monotonic clock; infinite while it does."""
        return self._whole[kind]

    def begun(self, job: Job) -> bool:
        return self._slots.begun(job.id)

    def depth(self, kind: Kind) -> int:
        """Jobs of this process that no worker has taken yet."""
        holder = self._slots.holder
        return sum(p.kind == kind and holder(job_id) is None for job_id, p in self._pending.items())

    async def submit(self, kind: Kind, job: Job, losses: int = 0) -> Reply:
        """The reply to `job`. Items over which workers keep dying are named in its errors.

        A caller that is cancelled gives the job up: no worker begins with it from then on. With a
        loss the job is suspect, and one more death is its own.

        Raises:
            DeadlineExceeded: no reply by `job.deadline`.
            Overloaded: more jobs are under way than the ledger has slots.
        """
        try:
            return await self._send(kind, job, losses)
        except WorkerLost:
            if len(job.items) == 1:
                log.error("an item over which %s workers die is set aside", kind)
                return _refusal(ItemQuarantined())
        except TookTooLong as error:
            return await self._without(kind, job, error.args[0])
        # One of these items kills workers. One by one, so that only that one is refused.
        return merged([await self._single(kind, one, losses=1) for one in _singles(job)])

    async def _without(self, kind: Kind, job: Job, slow: int) -> Reply:
        log.error("an item that takes too long to decode is refused")
        if len(job.items) == 1:
            return _refusal(ImageTooSlow())
        rest = [self._single(kind, one) for i, one in enumerate(_singles(job)) if i != slow]
        replies = await asyncio.gather(*rest)
        return merged([*replies[:slow], _refusal(ImageTooSlow()), *replies[slow:]])

    async def _single(self, kind: Kind, job: Job, losses: int = 0) -> Reply:
        try:
            return await self.submit(kind, job, losses)
        except ItemError as error:
            return _refusal(error)

    async def _send(self, kind: Kind, job: Job, losses: int = 0) -> Reply:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        job_id, pending = self._slots.take(), Pending(kind, job, future, losses=losses)
        self._pending[job_id], job.id = pending, job_id
        job.sent = job.sent or time.monotonic()
        left = job.deadline - time.monotonic() + GRACE
        patience = loop.call_later(left, pending.give_up, DeadlineExceeded())
        try:
            if losses:
                self._hold(pending)
            else:
                await self._put(pending)
            return await future
        finally:
            patience.cancel()
            self._pending.pop(job_id, None)
            self._slots.give_back(job_id)
            job.id = NO_ID
            for parcel in pending.parcels:
                parcel.take_back()

    async def _put(self, pending: Pending) -> None:
        job = pending.job
        channel = self._queues[pending.kind][job.bulk]
        if sum(map(len, job.items)) < INLINE_BYTES:
            channel.put(job)
        else:
            parcel = Parcel(job)
            pending.parcels.append(parcel)
            await asyncio.get_running_loop().run_in_executor(None, channel.post, parcel)

    # -- receiving -----------------------------------------------------------------------------

    def _receive(self) -> None:
        for status, told, worker in self._inbox.take(BURST):
            if status == REPLIES:
                for job_id, reply in told:
                    self._replied(job_id, reply)
            elif status == LIVE:
                self._told_live(told)
            elif status == LOST:
                self._lost(worker, *told)
            elif status == KEYS and self.on_keys is not None:
                self.on_keys(told)

    def _replied(self, job_id: JobId, reply: Reply) -> None:
        pending = self._pending.get(job_id)
        if pending is not None and not pending.future.done():
            pending.future.set_result(reply)

    def _told_live(self, found: dict[str, tuple[int, bool]]) -> None:
        for kind, (live, whole) in found.items():
            self.live[kind] = live
            if not whole:
                self._whole[kind] = math.inf
            elif self._whole[kind] == math.inf:
                self._whole[kind] = time.monotonic()

    def _lost(self, worker: int, kind: Kind, slow: Mapping[JobId, int] | None) -> None:
        self._whole[kind] = math.inf
        mine = {job_id: p for job_id, p in self._pending.items() if p.kind == kind}
        fell = [p for job_id, p in mine.items() if self._slots.holder(job_id) == worker]
        begun = sum(self._slots.begun(p.job.id) for p in fell)
        for pending in fell:
            job_id = pending.job.id
            if slow is None:
                self._again(pending, self._slots.begun(job_id), proves=begun == 1)
            elif job_id in slow:
                pending.give_up(TookTooLong(slow[job_id]))
            else:
                self._slots.again(job_id)
                self._spawn(self._put(pending))
        for bulk in (False, True):
            lying = [one for one, p in mine.items() if p.job.bulk == bulk and self._lies(one)]
            if lying:
                self._spawn(self._find_swallowed(kind, bulk, lying))

    def _lies(self, job_id: JobId) -> bool:
        """Whether the job is in the channel, as far as anybody has noted."""
        pending = self._pending.get(job_id)
        return pending is not None and not pending.held and self._slots.holder(job_id) is None

    async def _find_swallowed(self, kind: Kind, bulk: bool, waiting: list[JobId]) -> None:
        """Send again what the dead worker had taken from the queue without a word.

        Whatever waited before a probe that comes through was handed out by then. If the next worker
        dies with the probe, its loss sends another.
        """
        with contextlib.suppress(ServiceError):
            deadline = time.monotonic() + PROBE_PATIENCE
            await self._send(kind, Job([], deadline=deadline, bulk=bulk))
        for job_id in filter(self._lies, waiting):
            self._spawn(self._put(self._pending[job_id]))

    def _again(self, pending: Pending, begun: bool, proves: bool) -> None:
        pending.losses += 1
        self._slots.again(pending.job.id)
        suspect = begun or pending.losses >= SUSPECT
        proven = pending.losses >= PROVEN or (pending.alone and begun and proves)
        if proven or (suspect and len(pending.job.items) > 1):
            pending.give_up(WorkerLost())
        elif pending.alone or not suspect:
            self._spawn(self._put(pending))
        else:
            self._hold(pending)

    def _hold(self, pending: Pending) -> None:
        pending.held = True
        self._spawn(self._put_alone(pending))

    async def _put_alone(self, pending: Pending) -> None:
        """Send a suspect once no other one is under way, and let the next go when it has ended."""
        async with self._lanes[pending.kind]:
            if pending.future.done():
                return
            pending.held, pending.alone = False, True
            await self._put(pending)
            await asyncio.wait([pending.future])

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _singles(job: Job) -> list[Job]:
    places = range(len(job.items))
    return [replace(job, items=job.items[i : i + 1], sent=0.0, id=NO_ID) for i in places]


def _refusal(error: ItemError) -> Reply:
    return Reply(b"", [0], errors={0: error.code})


def merged(replies: Sequence[Reply]) -> Reply:
    """Replies to single items as one reply. They were sent one at a time, so their waits add up."""
    reply = joined(replies)
    reply.queue_seconds = sum(one.queue_seconds for one in replies)
    return reply
