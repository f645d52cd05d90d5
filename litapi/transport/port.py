"""A worker's end of the queues: fetch a job, note who has it, send the replies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from litapi.messages import START, Job, Reply
from litapi.transport.channel import INLINE_BYTES, Channel
from litapi.transport.ledger import JobId, Ledger

MESSAGE_BYTES = INLINE_BYTES // 2  # of vectors, after which another message begins
REPLIES = "REPLIES"  # names and replies of several jobs


@dataclass(frozen=True, slots=True)
class Fetched:
    """A job in a worker, with the address its reply goes to."""

    consumer: int
    job_id: JobId
    job: Job


class Transport(Protocol):
    """The way back to the HTTP processes: LitServe's MPQueueTransport."""

    def send(self, item: Any, consumer_id: int) -> None:
        """Put `item` into the inbox of one HTTP process."""


class WorkerPort:
    """A worker's end of the queues."""

    def __init__(self, worker: int, jobs: Channel, transport: Transport, ledger: Ledger) -> None:
        self._worker = worker
        self._jobs = jobs
        self._transport = transport
        self._ledger = ledger

    def fetch(self) -> Fetched:
        """The next job that somebody waits for; waits without using the CPU, and notes it."""
        while True:
            consumer, job_id, _, job = self._jobs.get()
            if job_id is None:  # LitServe's own stop signal: the process is about to be ended
                continue
            if self._ledger.wanted(job_id):
                if not self._ledger.hold(job_id, self._worker):
                    self._answer(consumer, job_id, None, START)
                return Fetched(consumer, job_id, job)

    def begin(self, fetched: Fetched) -> bool:
        """Whether somebody still waits for the job; from then on it counts as begun."""
        return self._ledger.begin(fetched.job_id)

    def send(self, replies: Sequence[tuple[Fetched, Reply]]) -> None:
        """Send replies to where their jobs came from, those of one process together."""
        together: dict[int, list[tuple[JobId, Reply]]] = {}
        for fetched, reply in replies:
            together.setdefault(fetched.consumer, []).append((fetched.job_id, reply))
        for consumer, mine in together.items():
            for part in _parted(mine):
                self._answer(consumer, "", part, REPLIES)

    def _answer(self, consumer: int, job_id: Any, data: Any, status: str) -> None:
        """As LitServe's loops do, but for the kind of response: an enum is slow to unpickle."""
        self._transport.send((job_id, (data, status, None, self._worker)), consumer_id=consumer)


def _parted(replies: Sequence[tuple[JobId, Reply]]) -> Iterator[list[tuple[JobId, Reply]]]:
    part, size = [], 0
    for name, reply in replies:
        part.append((name, reply))
        size += len(reply.vectors)
        if size > MESSAGE_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part
