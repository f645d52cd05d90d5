"""Who waits for a job, who holds it and who has begun it, in memory that all processes share.

Each job owns a slot, and its id contains the slot's index and the job's number. Three words stand
in a slot. *Wanted* holds the job's number while somebody waits for it: LitServe's queue cannot be
searched, so a job whose clients have left stays there, and the worker that finds another number in
its slot drops it. *Begun* says that a worker has begun the job: what is begun is finished and kept.
*Held* says which worker has it, because that worker may die; a message would wake the HTTP process
twice for each job.

A word is written in one go, so there is no lock: a look that comes a moment too late costs some
work, never an answer. A job that finds no free slot is never dropped.
"""

from __future__ import annotations

import itertools
import multiprocessing
import time

SLOTS = 8192  # jobs under way in one HTTP process; twice the items that are let in by default
NO_SLOT = -1
NUMBER_BITS = 48  # that tell two jobs of a slot apart; nobody looks at one for days
NUMBER = (1 << NUMBER_BITS) - 1

JobId = tuple[int, int]  # a slot, and the number of the job that it is for


class Ledger:
    """The slots of all HTTP processes. Made in the main process, before any other is started."""

    def __init__(self, processes: int = 1) -> None:
        words = multiprocessing.get_context("spawn").RawArray
        self._wanted = words("Q", processes * SLOTS)
        self._begun = words("Q", processes * SLOTS)
        self._held = words("Q", processes * SLOTS)  # the job's number, and above it its worker's

    def slots(self, process: int = 0) -> Slots:
        """The slots of one HTTP process; call it in that process, once."""
        return Slots(self, process * SLOTS)

    def wanted(self, job_id: JobId) -> bool:
        """Whether somebody waits for the job of that job_id."""
        slot, number = job_id
        return slot == NO_SLOT or self._wanted[slot] == number

    def hold(self, job_id: JobId, worker: int) -> bool:
        """Note which worker has the job now. False: it has no slot, and this must be told."""
        slot, number = job_id
        if slot == NO_SLOT:
            return False
        self._held[slot] = (worker + 1 << NUMBER_BITS) | (number & NUMBER)
        return True

    def holder(self, job_id: JobId) -> int | None:
        """The worker that has the job, if one has noted it."""
        slot, number = job_id
        held = 0 if slot == NO_SLOT else self._held[slot]
        return (held >> NUMBER_BITS) - 1 if held and held & NUMBER == number & NUMBER else None

    def begin(self, job_id: JobId) -> bool:
        """Say that a worker begins with the job, unless nobody waits; whether it shall."""
        slot, number = job_id
        if slot == NO_SLOT:
            return True
        if self._wanted[slot] != number:
            return False
        self._begun[slot] = number
        return True

    def begun(self, job_id: JobId) -> bool:
        """Whether a worker has begun with the job."""
        slot, number = job_id
        return slot != NO_SLOT and self._begun[slot] == number

    def write(self, slot: int, number: int) -> None:
        """Somebody waits for the job of that number, and no worker has it yet; 0: nobody."""
        self._wanted[slot] = number
        self._begun[slot] = self._held[slot] = 0


class Slots:
    """Names the jobs of one HTTP process, and takes back their slots."""

    def __init__(self, ledger: Ledger, first: int) -> None:
        self._ledger = ledger
        self._free = list(range(first, first + SLOTS))
        self._numbers = itertools.count(time.monotonic_ns())  # none that a process before gave out
        for slot in self._free:  # whoever asked a process that died is gone
            ledger.write(slot, 0)

    def take(self) -> JobId:
        """The job_id of a new job."""
        slot, number = self._free.pop() if self._free else NO_SLOT, next(self._numbers)
        if slot != NO_SLOT:
            self._ledger.write(slot, number)
        return slot, number

    def give_back(self, job_id: JobId) -> None:
        """Nobody waits for that job any more: it is answered, or given up."""
        slot, _ = job_id
        if slot != NO_SLOT:
            self._ledger.write(slot, 0)
            self._free.append(slot)

    def begun(self, job_id: JobId) -> bool:
        """Whether a worker has begun with the job."""
        return self._ledger.begun(job_id)

    def holder(self, job_id: JobId) -> int | None:
        """The worker that has the job, if one has noted it."""
        return self._ledger.holder(job_id)

    def again(self, job_id: JobId) -> None:
        """The worker that had it is lost."""
        slot, number = job_id
        if slot != NO_SLOT:
            self._ledger.write(slot, number)
