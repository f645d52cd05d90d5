"""What each worker of a tower is at, in memory that it shares with the main process.

A worker writes that it lives, since when it has been in the model, and which picture each of its
decode threads has under way; each costs a few stores. The main process reads all of it four times a
second and judges. It counts only the time in which it ran itself, so that a machine that was
suspended finds its workers well; and a decode thread's own CPU time, so that a picture is not
called slow because others had the cores. A decoder in C cannot be told to stop: its worker is
replaced.

Workers on one device, such as the two towers on a CPU, take time from each other. So each also says
whether it has interactive work, and begins no bulk batch while another one on its device has some.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Hashable, Iterator, MutableSequence, Sequence
from pathlib import Path
from typing import NamedTuple

from litapi.messages import JobId

THREADS = 16  # decode threads of a worker that are watched; no more are started by default
BEAT = 1.0  # seconds between two signs of life
LONGEST_LOOK = 1.0  # seconds that pass between two looks at most; more were no time at all
_WORDS = 5  # of a decode thread: number and slot of the job, item, thread, CPU time at its start
_TICK = 1.0 / os.sysconf("SC_CLK_TCK")


class Decoding(NamedTuple):
    """A picture under way: which item of which job, in which thread, from which CPU time on."""

    job_id: JobId
    item: int
    thread: int
    began: float


class Vitals:
    """The shared memory. Made in the main process, before any other is started."""

    def __init__(self, workers: int = 1, threads: int = THREADS) -> None:
        words = multiprocessing.get_context("spawn").RawArray
        self.threads = threads
        self._beats = words("d", workers)
        self._model = words("d", workers)
        self._decodes = words("Q", workers * threads * _WORDS)

    # -- in a worker ---------------------------------------------------------------------------

    def beat(self, worker: int) -> None:
        self._beats[worker] = time.monotonic()

    def in_model(self, worker: int, since: float) -> None:
        """Since when the worker has been in the model; 0 when it is not."""
        self._model[worker] = since

    def begin(self, worker: int, slot: int, job_id: JobId, item: int) -> None:
        """The decode thread of that slot, which is the caller, begins with an item."""
        at = (worker * self.threads + slot) * _WORDS
        spent = int(time.thread_time() * 1e9)
        thread = threading.get_native_id()
        self._decodes[at + 1 : at + _WORDS] = [job_id[0] + 1, item, thread, spent]
        self._decodes[at] = job_id[1]  # last: whoever reads this word finds the others written

    def end(self, worker: int, slot: int) -> None:
        self._decodes[(worker * self.threads + slot) * _WORDS] = 0

    # -- in the main process -------------------------------------------------------------------

    def clear(self, worker: int) -> None:
        self._beats[worker] = self._model[worker] = 0.0
        for slot in range(self.threads):
            self.end(worker, slot)

    def signs(self, worker: int) -> dict[Hashable, float]:
        """What changes while the worker is well, where there is any; without its decoding."""
        found: dict[Hashable, float] = {"beat": self._beats[worker], "model": self._model[worker]}
        return {sign: value for sign, value in found.items() if value}

    def decoding(self, worker: int) -> Iterator[Decoding]:
        for slot in range(self.threads):
            at = (worker * self.threads + slot) * _WORDS
            number, slot_index, item, thread, began = self._decodes[at : at + _WORDS]
            if number:
                yield Decoding((slot_index - 1, number), item, thread, began / 1e9)


class Watcher:
    """Judges one worker by its vitals."""

    def __init__(self, vitals: Vitals, worker: int) -> None:
        self._vitals = vitals
        self._worker = worker
        self._slow: list[Decoding] = []
        self._still: dict[Hashable, tuple[float, float]] = {}  # sign → its value, seconds unchanged
        self._looked = time.monotonic()

    def slow(self, pid: int, budget: float) -> bool:
        """Whether pictures were ever found to have used more CPU time than `budget` seconds."""
        if not self._slow:
            found = self._vitals.decoding(self._worker)
            self._slow = [one for one in found if cpu_seconds(pid, one.thread) > one.began + budget]
        return bool(self._slow)

    def hangs(self, pid: int, limit: float) -> bool:
        """Look, and say whether something in the worker has stood still for `limit` seconds."""
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, LONGEST_LOOK), now
        signs = self._vitals.signs(self._worker)
        for one in self._vitals.decoding(self._worker):
            signs[one] = cpu_seconds(pid, one.thread)
        seen = self._still
        self._still = {
            sign: (value, seen[sign][1] + passed if seen.get(sign, (None,))[0] == value else 0.0)
            for sign, value in signs.items()
        }
        return any(seconds > limit for _, seconds in self._still.values())

    def forget(self) -> dict[JobId, int] | None:
        """The worker is gone, and another takes its place. None if no picture was slow; else the
        slow items that were still being decoded, by their jobs."""
        under_way, slow = set(self._vitals.decoding(self._worker)), self._slow
        self._vitals.clear(self._worker)
        self._slow, self._still = [], {}
        return {one.job_id: one.item for one in slow if one in under_way} if slow else None


def cpu_seconds(pid: int, thread: int) -> float:
    """CPU time of a thread of a process; 0 where it is gone or the system does not tell."""
    try:
        stat = Path(f"/proc/{pid}/task/{thread}/stat").read_text()
    except OSError:
        return 0.0
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK


def urgency(devices: Sequence[str]) -> list[Urgent]:
    """A word for each worker of a server, in the order of their devices. Made in the main process,
    before any other is started."""
    words = multiprocessing.get_context("spawn").RawArray("b", len(devices))
    places = range(len(devices))
    return [
        Urgent(words, mine, [n for n in places if n != mine and devices[n] == devices[mine]])
        for mine in places
    ]


class Urgent:
    """One worker's word, and those of its neighbours on the device."""

    def __init__(self, words: MutableSequence[int], mine: int, neighbours: Sequence[int]) -> None:
        self._words = words
        self._mine = mine
        self._neighbours = neighbours

    def say(self, urgent: bool) -> None:
        """Whether this worker has interactive work."""
        self._words[self._mine] = urgent

    def elsewhere(self) -> bool:
        """Whether a neighbour has."""
        return any(self._words[n] for n in self._neighbours)
