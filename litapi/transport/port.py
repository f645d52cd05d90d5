"""A worker's end of the queues: fetch a job, note who has it, send the replies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from litapi.messages import Job, JobId, Reply
from litapi.transport.channel import INLINE_BYTES, Channel
from litapi.transport.ledger import Ledger

MESSAGE_BYTES = INLINE_BYTES // 2  # of vectors, after which another message begins
REPLIES = "REPLIES"  # a message from a worker: ids and replies of several jobs
Answered = tuple[JobId, Reply]


class PortClosed(Exception):
    """No more jobs will come."""


class WorkerPort:
    def __init__(
        self, worker: int, jobs: Sequence[Channel], inboxes: Sequence[Channel], ledger: Ledger
    ) -> None:
        self._worker = worker
        self._jobs, self.lanes = jobs, len(jobs)  # those of the first go first
        self._inboxes = inboxes  # of the HTTP processes
        self._ledger = ledger

    def fetch(self, lane: int = 0) -> Job:
        """The next job that somebody waits for; waits without using the CPU, and notes it."""
        while True:
            job = self._jobs[lane].get()
            # anything else is LitServe's own stop signal: the process is about to be ended
            if isinstance(job, Job) and self._ledger.wanted(job.id):
                self._ledger.hold(job.id, self._worker)
                return job

    def begin(self, job_id: JobId) -> bool:
        """Whether somebody still waits for the job; from then on it counts as begun."""
        return self._ledger.begin(job_id)

    def send(self, replies: Sequence[Answered]) -> None:
        """Send replies to where their jobs came from, those of one process together."""
        together: dict[int, list[Answered]] = {}
        for job_id, reply in replies:
            together.setdefault(self._ledger.process(job_id), []).append((job_id, reply))
        for process, mine in together.items():
            for part in _parted(mine):
                self._inboxes[process].put((REPLIES, part, self._worker))


def _parted(replies: Sequence[Answered]) -> Iterator[list[Answered]]:
    part, size = [], 0
    for job_id, reply in replies:
        part.append((job_id, reply))
        size += len(reply.vectors)
        if size > MESSAGE_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part
