"""Which jobs somebody still waits for, in memory that HTTP processes and workers share.

LitServe's queue cannot be searched, so a job whose clients have left cannot be taken out of it. It
gets a place here instead, and its name tells which: while the place holds the job's number,
somebody waits for it. A worker that finds another number there drops the job before it costs
anything. A second word says that a worker has begun with the job, for what is begun is finished and
kept, and a third which worker has it, for that worker may die: to say so in a message would wake
the HTTP process twice for each job. A word is written in one go, so there is no lock: a look that
comes a moment too late costs some work, never an answer. A job that finds no place free is never
dropped.
"""

from __future__ import annotations

import itertools
import multiprocessing
import time

PLACES = 8192  # jobs under way in one HTTP process; twice the items that are let in by default
NOWHERE = -1
NUMBER_BITS = 48  # that tell two jobs of a place apart; nobody looks at one for days
NUMBER = (1 << NUMBER_BITS) - 1

Name = tuple[int, int]  # a place, and the number of the job that it is for


class Interest:
    """The places of all HTTP processes. Made in the main process, before any other is started."""

    def __init__(self, processes: int = 1) -> None:
        words = multiprocessing.get_context("spawn").RawArray
        self._wanted = words("Q", processes * PLACES)
        self._begun = words("Q", processes * PLACES)
        self._held = words("Q", processes * PLACES)  # the job's number, and above it its worker's

    def claims(self, process: int = 0) -> Claims:
        """The places of one HTTP process; call it in that process, once."""
        return Claims(self, process * PLACES)

    def wanted(self, name: Name) -> bool:
        """Whether somebody waits for the job of that name."""
        place, number = name
        return place == NOWHERE or self._wanted[place] == number

    def hold(self, name: Name, worker: int) -> bool:
        """Note which worker has the job now. False: it has no place, and this must be told."""
        place, number = name
        if place == NOWHERE:
            return False
        self._held[place] = (worker + 1 << NUMBER_BITS) | (number & NUMBER)
        return True

    def holder(self, name: Name) -> int | None:
        """The worker that has the job, if one has noted it."""
        place, number = name
        held = 0 if place == NOWHERE else self._held[place]
        return (held >> NUMBER_BITS) - 1 if held and held & NUMBER == number & NUMBER else None

    def begin(self, name: Name) -> bool:
        """Say that a worker begins with the job, unless nobody waits; whether it shall."""
        place, number = name
        if place == NOWHERE:
            return True
        if self._wanted[place] != number:
            return False
        self._begun[place] = number
        return True

    def begun(self, name: Name) -> bool:
        """Whether a worker has begun with the job."""
        place, number = name
        return place != NOWHERE and self._begun[place] == number

    def write(self, place: int, number: int) -> None:
        """Somebody waits for the job of that number, and no worker has it yet; 0: nobody."""
        self._wanted[place] = number
        self._begun[place] = self._held[place] = 0


class Claims:
    """Names the jobs of one HTTP process, and takes back their places."""

    def __init__(self, interest: Interest, first: int) -> None:
        self._interest = interest
        self._free = list(range(first, first + PLACES))
        self._numbers = itertools.count(time.monotonic_ns())  # none that a process before gave out
        for place in self._free:  # whoever asked a process that died is gone
            interest.write(place, 0)

    def take(self) -> Name:
        """The name of a new job."""
        place, number = self._free.pop() if self._free else NOWHERE, next(self._numbers)
        if place != NOWHERE:
            self._interest.write(place, number)
        return place, number

    def give_back(self, name: Name) -> None:
        """Nobody waits for that job any more: it is answered, or given up."""
        place, _ = name
        if place != NOWHERE:
            self._interest.write(place, 0)
            self._free.append(place)

    def begun(self, name: Name) -> bool:
        """Whether a worker has begun with the job."""
        return self._interest.begun(name)

    def holder(self, name: Name) -> int | None:
        """The worker that has the job, if one has noted it."""
        return self._interest.holder(name)

    def again(self, name: Name) -> None:
        """The worker that had it is lost."""
        place, number = name
        if place != NOWHERE:
            self._interest.write(place, number)
