"""The towers as an HTTP process uses them: admit, wait for a turn, submit, measure.

There are two classes of work, interactive and bulk, each with its own bounds, turns and channel to
every tower. Bulk is held here and handed over only so far ahead as keeps the tower busy; what is
handed over waits in the worker behind all that is interactive. A large job is cut: bulk into pieces
of a batch, so that clients and classes alternate from batch to batch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from litapi.errors import ItemError, ServiceError
from litapi.messages import KINDS, NO_ID, Job, Kind, Reply, joined
from litapi.metrics import Metrics, held
from litapi.settings import Settings
from litapi.transport.admission import Admission, cost_of
from litapi.transport.client import ANYONE, Asker
from litapi.transport.dispatcher import Dispatcher
from litapi.transport.turns import Turns

MB = 1 << 20
USUAL_PATCHES = 256
PORTION: dict[Kind, int] = {"text": 256, "image": 64}  # items of one job; what costs more is cut
AHEAD = 2  # portions of a request for each worker: one in the model, the next being decoded
BATCHES = 3  # of each worker that may be under way: one in the model, one decoded, one to come
BULK_SHARE = 2  # bulk may fill this part of the bounds, so that interactive work finds room


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the workers of one tower take, in items of the usual size."""

    batch: int = 64  # of one worker
    workers: int = 1


@dataclass(slots=True)
class Lane:
    """The work of one class at one tower."""

    kind: Kind
    capacity: Capacity
    admission: Admission
    turns: Turns


class Pool:
    """Both towers, behind their admission."""

    def __init__(
        self,
        settings: Settings,
        dispatcher: Dispatcher,
        metrics: Metrics,
        usual_patches: int = USUAL_PATCHES,
        capacity: Mapping[Kind, Capacity] | None = None,
    ) -> None:
        self._share = settings.front_processes  # of the server's bounds, each process has its part
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._usual_patches = usual_patches  # of an image, where a request asks for no number
        told = capacity or {}
        self._lanes = {
            (kind, bulk): self._lane(settings, kind, bulk, told.get(kind, Capacity()))
            for kind in KINDS
            for bulk in (False, True)
        }
        self.served: dict[Kind, float] = {}  # when each tower last answered real work

    def _lane(self, settings: Settings, kind: Kind, bulk: bool, capacity: Capacity) -> Lane:
        part = self._share * (BULK_SHARE if bulk else 1)
        admission = Admission(
            max(1, settings.max_queue // part),
            max(1, settings.max_queue_mb * MB // part),
            settings.max_wait / self._share,
            lambda: self._dispatcher.whole_since(kind),
        )
        turns = Turns(BATCHES * capacity.batch * capacity.workers)
        return Lane(kind, capacity, admission, turns)

    async def submit(self, kind: Kind, job: Job, asker: Asker = ANYONE) -> Reply:
        """The reply to a job.

        Raises:
            Overloaded, RateLimited, DeadlineExceeded: at once, where there is no room for it.
        """
        size, patches = sum(map(len, job.items)), job.max_num_patches
        weight = cost_of(patches, self._usual_patches) if patches else 1
        cost = weight * len(job.items)
        lane, job.bulk = self._lanes[kind, asker.bulk], asker.bulk
        most = min(lane.capacity.batch, PORTION[kind])  # so that all workers can share a request
        try:
            with lane.admission.admit(cost, size, asker):
                if cost <= most:
                    reply = await self._in_turn(lane, job, cost, asker)
                else:
                    reply = await self._in_portions(lane, job, weight, most, asker)
        except asyncio.CancelledError:  # all who waited have left
            self._metrics.given_up(kind, len(job.items))
            raise
        except ServiceError as error:
            self._metrics.turned_away(asker.client.name, job.bulk, error.code)
            raise
        # bulk's workers may answer while the tower's others stand still
        if not job.bulk and (not reply.errors or _served(reply, len(job.items))):
            self.served[kind] = time.monotonic()
        self._metrics.computed(kind, job.bulk, asker.client.name, len(job.items), reply)
        return reply

    async def _in_turn(self, lane: Lane, job: Job, cost: int, asker: Asker) -> Reply:
        job.sent, turns = time.monotonic(), lane.turns
        if not turns.free(cost):
            await turns.wait(cost, len(job.items), asker.client, job.deadline)
        try:
            return await self._dispatcher.submit(lane.kind, job)
        finally:
            turns.done(cost)

    async def _in_portions(
        self, lane: Lane, job: Job, weight: int, most: int, asker: Asker
    ) -> Reply:
        """The reply to a large job. What others ask meanwhile is done between its portions.

        Portions of bulk wait for their turn; it is their turn that bounds how many are under way.
        """
        items = most // weight or 1
        room = asyncio.Semaphore(len(job.items) if job.bulk else AHEAD * lane.capacity.workers)

        async def sent(at: int) -> Reply:
            portion = replace(job, items=job.items[at : at + items], id=NO_ID)
            async with room:
                return await self._in_turn(lane, portion, weight * len(portion.items), asker)

        tasks = [asyncio.ensure_future(sent(at)) for at in range(0, len(job.items), items)]
        try:
            return joined(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    def begun(self, job: Job) -> bool:
        return self._dispatcher.begun(job)

    def observe(self) -> None:
        for kind in KINDS:
            both = [self._lanes[kind, bulk] for bulk in (False, True)]
            self._metrics.load(
                kind,
                depth=self._dispatcher.depth(kind) + sum(lane.turns.jobs for lane in both),
                age=max(self._dispatcher.oldest(kind), both[0].turns.age),
                items=sum(lane.admission.items for lane in both),
                refused=sum(lane.admission.refused for lane in both),
            )
            for bulk, lane in enumerate(both):
                self._metrics.waiting(kind, bool(bulk), lane.turns.items, lane.turns.age)
        admissions = [lane.admission for lane in self._lanes.values()]
        held("queue", sum(a.bytes for a in admissions), sum(a.max_bytes for a in admissions))


def capacities(workers: Any, text_length: int, patches: int) -> dict[Kind, Capacity]:
    """What each tower takes, by what its workers told when they had loaded."""
    found: dict[Kind, Capacity] = {}
    for kind, usual in zip(KINDS, (text_length, patches), strict=True):
        budgets = [one["batch_budget"] for one in workers if one["tower"] == kind]
        if budgets:
            found[kind] = Capacity(max(1, min(budgets) // usual), len(budgets))
    return found


def _served(reply: Reply, items: int) -> bool:
    """A tower that can embed nothing has not served."""
    return sum(not ItemError.own(code) for code in reply.errors.values()) < items
