"""Who waits for a job, who holds it and who has begun it, in memory that all processes share.

Each job owns a slot, and its id contains the slot's index and the job's number. Three words stand
in a slot. *Wanted* holds the job's number while somebody waits for it: a channel cannot be
searched, so a job whose clients have left stays there, and the worker that finds another number in
its slot drops it. *Begun* says that a worker has begun the job: what is begun is finished and kept.
*Held* says which worker has it, because that worker may die; a message would wake the HTTP process
twice for each job.

A word is written in one go, so there is no lock: a look that comes a moment too late costs some
work, never an answer.
"""

from __future__ import annotations

import itertools
import multiprocessing
import time

from litapi.errors import Overloaded
from litapi.messages import JobId

SLOTS = 8192  # jobs under way in one HTTP process
NUMBER_BITS = 48  # that tell two jobs of a slot apart; nobody looks at one for days
NUMBER = (1 << NUMBER_BITS) - 1


class Ledger:
    """The slots of all HTTP processes. Made in the main process, before any other is started."""

    def __init__(self, processes: int = 1, size: int = SLOTS) -> None:
        words = multiprocessing.get_context("spawn").RawArray
        self._size = size
        self._wanted = words("Q", processes * size)
        self._begun = words("Q", processes * size)
        self._held = words("Q", processes * size)  # the job's number, and above it its worker's

    def slots(self, process: int = 0) -> Slots:
        """The slots of one HTTP process; call it in that process, once."""
        return Slots(self, range(process * self._size, (process + 1) * self._size))

    def process(self, job_id: JobId) -> int:
        return job_id[0] // self._size

    def wanted(self, job_id: JobId) -> bool:
        slot, number = job_id
        return bool(self._wanted[slot] == number)

    def hold(self, job_id: JobId, worker: int) -> None:
        slot, number = job_id
        self._held[slot] = (worker + 1 << NUMBER_BITS) | (number & NUMBER)

    def holder(self, job_id: JobId) -> int | None:
        slot, number = job_id
        held = self._held[slot]
        return (held >> NUMBER_BITS) - 1 if held and held & NUMBER == number & NUMBER else None

    def begin(self, job_id: JobId) -> bool:
        """Say that a worker begins with the job, unless nobody waits; whether it shall."""
        slot, number = job_id
        if self._wanted[slot] != number:
            return False
        self._begun[slot] = number
        return True

    def begun(self, job_id: JobId) -> bool:
        slot, number = job_id
        return number != 0 and bool(self._begun[slot] == number)

    def write(self, slot: int, number: int) -> None:
        """Somebody waits for the job of that number, and no worker has it yet; 0: nobody."""
        self._wanted[slot] = number
        self._begun[slot] = self._held[slot] = 0


class Slots:
    """Names the jobs of one HTTP process, and takes back their slots."""

    def __init__(self, ledger: Ledger, mine: range) -> None:
        self._ledger = ledger
        self._free = list(mine)
        self._numbers = itertools.count(time.monotonic_ns())  # none that a process before gave out
        self.begun = ledger.begun
        self.holder = ledger.holder
        for slot in mine:  # whoever asked a process that died is gone
            ledger.write(slot, 0)

    def take(self) -> JobId:
        """The id of a new job. Raises `Overloaded` where every slot is owned."""
        if not self._free:
            raise Overloaded
        slot, number = self._free.pop(), next(self._numbers)
        self._ledger.write(slot, number)
        return slot, number

    def give_back(self, job_id: JobId) -> None:
        """Nobody waits for that job any more: it is answered, or given up."""
        self._ledger.write(job_id[0], 0)
        self._free.append(job_id[0])

    def again(self, job_id: JobId) -> None:
        """The worker that had it is lost."""
        self._ledger.write(*job_id)
