"""The worker loop's end of the queue where there is no queue: jobs come from this very process.

So the service's own loop (fetch ∥ decode ∥ predict ∥ send) runs here as it is.
"""

from __future__ import annotations

import asyncio
import itertools
import queue
from collections.abc import Sequence

from litapi.messages import Job, JobId, Reply
from litapi.transport.port import Answered, PortClosed, WorkerPort


class LocalPort(WorkerPort):
    """Takes jobs in one event loop and gives them to the loop's threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._events = loop
        self._asked: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.lanes = 1
        self._replies: dict[JobId, asyncio.Future[Reply]] = {}
        self._numbers = itertools.count()

    async def submit(self, job: Job) -> Reply:
        """The reply to a job; call it in the event loop."""
        job.id = 0, next(self._numbers)
        self._replies[job.id] = self._events.create_future()
        self._asked.put(job)
        return await self._replies[job.id]

    def fetch(self, lane: int = 0) -> Job:
        """The next job; waits without using the CPU. Raises PortClosed."""
        del lane
        job = self._asked.get()
        if job is None:
            raise PortClosed
        return job

    def close(self) -> None:
        """No more jobs; the loop ends when it comes to this."""
        self._asked.put(None)

    def begin(self, job_id: JobId) -> bool:
        """Always: nobody here leaves."""
        del job_id
        return True

    def send(self, replies: Sequence[Answered]) -> None:
        """Hand each reply to whoever waits for it in the event loop."""
        for job_id, reply in replies:
            future = self._replies.pop(job_id)
            self._events.call_soon_threadsafe(future.set_result, reply)
