"""The towers as the front uses them: admit, submit, measure."""

from __future__ import annotations

import asyncio
import functools
import time

from litapi.dispatcher import Dispatcher
from litapi.errors import ItemError
from litapi.messages import KINDS, Job, Kind, Reply
from litapi.metrics import Metrics
from litapi.settings import Settings
from litapi.transport.admission import Admission, cost_of

MB = 1 << 20
USUAL_PATCHES = 256


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
        cost = len(job.items)
        if job.max_num_patches:
            cost *= cost_of(job.max_num_patches, self._usual_patches)
        with self.admissions[kind].admit(cost, size):
            try:
                reply = await self._dispatcher.submit(kind, job)
            except asyncio.CancelledError:  # all who waited have left
                self._metrics.given_up(kind, len(job.items))
                raise
        if not reply.errors or _served(reply, len(job.items)):
            self.served[kind] = time.monotonic()
        self._metrics.stages(kind, reply.queue_seconds, reply.decode_seconds, reply.infer_seconds)
        return reply

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


def _served(reply: Reply, items: int) -> bool:
    """A tower that can embed nothing has not served."""
    return sum(not ItemError.own(code) for code in reply.errors.values()) < items
