"""A step: a function in a process of its own that notes what it finds, and the time it may take."""

from __future__ import annotations

import importlib
import multiprocessing
import signal
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import psutil

from bench.compare.baselines.system import Ground
from bench.gpu.sizes import Sizes
from bench.rig.machine import cores
from bench.rig.server_process import family

Row = dict[str, Any]  # as JSON holds it
GRACE = 8.0  # seconds of its time in which a step stops its servers


@dataclass(slots=True)
class Task:
    """What a step is given, and what it has found: on disk, so that one cut off keeps it."""

    device: str
    sizes: Sizes
    home: Path  # of the checkpoint that the first step writes
    ends: float  # on the clock that all processes share
    path: Path
    found: Row = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds until it is cut off."""
        return self.ends - GRACE - time.monotonic()

    @property
    def ground(self) -> Ground:
        """Checkpoint, cores and device. Raises FileNotFoundError before the first step."""
        snapshot = next(self.home.glob("*/snapshots/*"), None)
        if snapshot is None:
            raise FileNotFoundError("the first step has written no checkpoint")
        return Ground(snapshot, cores(), self.device)

    def note(self, **figures: object) -> None:
        """Keep figures by name."""
        self.found |= figures
        aside = self.path.with_suffix(".new")
        aside.write_bytes(orjson.dumps(self.found))
        aside.replace(self.path)

    def add(self, name: str, *rows: object) -> None:
        """Keep rows under that name, after those that are there."""
        self.note(**{name: [*self.found.get(name, []), *rows]})

    def fault(self, reason: object) -> None:
        """Keep what went wrong: the step has failed, and goes on all the same."""
        self.add("faults", str(reason)[:400])


@dataclass(frozen=True, slots=True)
class Step:
    """`work` is "module:function", which takes a Task; what it needs is imported in its process."""

    name: str
    work: str
    seconds: float  # it may take
    least: float  # with less it is not begun

    def play(self, task: Task) -> Row:
        """Run it until it ends, or its time is over; what it found and how it ended."""
        process = multiprocessing.get_context("spawn").Process(target=_work, args=(self.work, task))
        began = time.monotonic()
        process.start()
        process.join(max(0.0, task.left))
        late = process.is_alive()
        if late:
            _end(process)
        found: Row = orjson.loads(task.path.read_bytes()) if task.path.exists() else {}
        row: Row = {"step": self.name, "outcome": "ok"}
        if late:
            row |= {"outcome": "cut off", "reason": "its time was over"}
        elif process.exitcode or "faults" in found:
            reason = found.get("faults", [f"its process ended with {process.exitcode}"])[0]
            row |= {"outcome": "failed", "reason": reason}
        return {**row, "took_s": round(time.monotonic() - began, 1), **found}


def _work(work: str, task: Task) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that servers are stopped
    module, _, name = work.partition(":")
    try:
        getattr(importlib.import_module(module), name)(task)
    except Exception as error:
        task.fault(f"{type(error).__name__}: {error}")
        task.note(traceback=traceback.format_exc()[-4000:])


def _end(process: Any) -> None:
    """SIGTERM, and after a while SIGKILL to it and to all that it has started."""
    everybody = family(process.pid)
    process.terminate()
    process.join(GRACE)
    for pid in {*everybody, *family(process.pid)}:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()
    process.join()
