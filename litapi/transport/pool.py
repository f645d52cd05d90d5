"""The towers as the front uses them: admit, submit, measure."""

from __future__ import annotations

import asyncio
import functools
import time

from litapi.errors import ItemError
from litapi.messages import KINDS, Job, Kind, Reply, joined
from litapi.metrics import Metrics, held
from litapi.settings import Settings
from litapi.transport.admission import Admission, cost_of
from litapi.transport.dispatcher import Dispatcher

MB = 1 << 20
USUAL_PATCHES = 256
PORTION: dict[Kind, int] = {"text": 256, "image": 64}  # items of one job; what costs more is cut
AHEAD = 2  # portions of one request under way: the next is decoded while the model has one


class Pool:
    """Both towers, behind their admission."""

    def __init__(
        self,
        settings: Settings,
        dispatcher: Dispatcher,
        metrics: Metrics,
        usual_patches: int = USUAL_PATCHES,
    ) -> None:
        share = settings.front_processes  # the bounds are the server's; each process has its part
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._usual_patches = usual_patches  # of an image, where a request asks for no number
        self.admissions: dict[Kind, Admission] = {
            kind: Admission(
                max(1, settings.max_queue // share),
                max(1, settings.max_queue_mb * MB // share),
                settings.max_wait / share,
                functools.partial(self._whole_since, kind),
            )
            for kind in KINDS
        }
        self.served: dict[Kind, float] = {}  # when each tower last answered real work

    async def submit(self, kind: Kind, job: Job) -> Reply:
        """The reply to a job. Raises `Overloaded` at once where there is no room for it."""
        size = sum(map(len, job.items))
        weight = 1
        if job.max_num_patches:
            weight = cost_of(job.max_num_patches, self._usual_patches)
        cost = weight * len(job.items)
        with self.admissions[kind].admit(cost, size):
            try:
                if cost <= PORTION[kind]:
                    reply = await self._dispatcher.submit(kind, job)
                else:
                    reply = await self._in_portions(kind, job, PORTION[kind] // weight or 1)
            except asyncio.CancelledError:  # all who waited have left
                self._metrics.given_up(kind, len(job.items))
                raise
        if not reply.errors or _served(reply, len(job.items)):
            self.served[kind] = time.monotonic()
        self._metrics.stages(kind, reply.queue_seconds, reply.decode_seconds, reply.infer_seconds)
        return reply

    async def _in_portions(self, kind: Kind, job: Job, items: int) -> Reply:
        """The reply to a large job. What others ask meanwhile is done between its portions."""
        room = asyncio.Semaphore(AHEAD)

        async def sent(at: int) -> Reply:
            portion = Job(job.items[at : at + items], job.max_num_patches, job.deadline)
            async with room:
                return await self._dispatcher.submit(kind, portion)

        tasks = [asyncio.ensure_future(sent(at)) for at in range(0, len(job.items), items)]
        try:
            return joined(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    def begun(self, job: Job) -> bool:
        """Whether a worker has begun with this job."""
        return self._dispatcher.begun(job)

    def _whole_since(self, kind: Kind) -> float:
        return self._dispatcher.whole_since(kind)

    def observe(self) -> None:
        """Bring the gauges of this process up to date."""
        for kind, admission in self.admissions.items():
            self._metrics.load(
                kind,
                depth=self._dispatcher.depth(kind),
                age=self._dispatcher.oldest(kind),
                items=admission.items,
                refused=admission.refused,
            )
        size = sum(admission.bytes for admission in self.admissions.values())
        bound = sum(admission.max_bytes for admission in self.admissions.values())
        held("queue", size, bound)


def _served(reply: Reply, items: int) -> bool:
    """A tower that can embed nothing has not served."""
    return sum(not ItemError.own(code) for code in reply.errors.values()) < items
