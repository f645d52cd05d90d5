"""A step: a function in a process of its own that notes what it finds, within a time of its own.

What one step leaves of its time goes to those after it, and the file is written after each.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import psutil

from bench.compare.baselines.system import Ground
from bench.rig.machine import Machine, cores
from bench.rig.random_checkpoint import SIZES, Size, thin
from bench.rig.result_file import RESULTS, save
from bench.rig.server_process import family
from litapi.process import raise_limit

Row = dict[str, Any]  # as JSON holds it
GRACE = 8.0  # seconds of its time in which a step stops its servers
SO400M = replace(SIZES["so400m-patch16-naflex"], vocabulary=32_000)  # 1.8 GB, not 2.3


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much each step does: by default on a GPU."""

    model: Size = SO400M
    smoke: int = 24  # items of each tower
    rows: int = 64 * 256  # of the large products: pictures × patches
    outputs: tuple[int, ...] = (1152, 3456, 4304)  # columns of their weights
    attention: tuple[int, int, int, int] = (64, 16, 256, 72)  # pictures, heads, patches, numbers
    images: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)  # batches
    texts: tuple[int, ...] = (1, 4, 8, 32, 128, 256)
    mixed: int = 64  # pictures of a batch whose requests ask for so many patches, in turn
    mixes: tuple[tuple[int, ...], ...] = ((256,), (64, 128, 256), (64, 256, 576, 1024))
    compiled: int = 64  # the one size of batch
    rounds: int = 2
    seconds: float = 0.3  # of a slice of the towers and of the small parts
    workers: tuple[int, ...] = (1, 2, 4)  # of the image tower
    bare: tuple[int, int] = (64, 256)  # pictures, texts of a batch
    image_levels: tuple[int, ...] = (1, 64, 512)  # requests in flight
    text_levels: tuple[int, ...] = (1, 64, 1024)
    items: int = 32  # of a text request of several,
    full_levels: tuple[int, ...] = (16,)  # and how many of those
    served_seconds: float = 4.0  # of a level


# A dry run goes the same way with very little.
DRY = Sizes(
    model=thin(64), smoke=3, rows=64, outputs=(64, 192), attention=(4, 2, 16, 8), images=(1, 2),
    texts=(1, 2), mixed=4, mixes=((256,), (16, 64)), compiled=2, rounds=1, seconds=0.02,
    workers=(1, 2), bare=(2, 2), image_levels=(2,), text_levels=(2,), items=4, full_levels=(1,),
    served_seconds=0.5,
)  # fmt: skip


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


STEPS = (
    Step("ready", "bench.gpu.ready:ready", seconds=42, least=10),
    Step("smoke", "bench.gpu.ready:smoke", seconds=20, least=10),
    Step("micro", "bench.gpu.towers:micro", seconds=30, least=12),
    Step("eager", "bench.gpu.towers:eager", seconds=75, least=30),
    Step("images", "bench.gpu.served:images", seconds=135, least=45),
    Step("texts", "bench.gpu.served:texts", seconds=65, least=40),
    Step("compiled", "bench.gpu.towers:compiled", seconds=110, least=40),
    Step("tests", "bench.gpu.ready:suite", seconds=55, least=30),
)
PLANNED = sum(step.seconds for step in STEPS)


def run(
    device: str,
    sizes: Sizes,
    began: float,
    seconds: float,
    steps: Sequence[Step],
    keep: Callable[[list[Row]], object],
) -> list[Row]:
    """Play the steps, `seconds` in all; `keep` is called with the rows after each."""
    scale, ends, rows = seconds / PLANNED, began, list[Row]()
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as home:
        for step in steps:
            ends += step.seconds * scale
            task = Task(device, sizes, Path(home), ends, Path(home) / f"{step.name}.json")
            left, least = ends - time.monotonic(), step.least * min(1.0, scale)
            reason = f"{left:.0f} s were left, and it takes {least:.0f} or more"
            skipped = {"step": step.name, "outcome": "skipped", "reason": reason, "took_s": 0.0}
            rows.append(skipped if left < least else step.play(task))
            keep(rows)
    return rows


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


def start(options: argparse.Namespace) -> int:
    from bench.gpu.lines import lines  # all systems: not for the processes of steps

    raise_limit()
    named = [name for name in options.only.split(",") if name]
    if unknown := {*named} - {step.name for step in STEPS}:
        print(f"bench: there is no step {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    chosen = [step for step in STEPS if step.name in ("ready", *(named or [step.name]))]
    machine = Machine.read()
    machine = replace(machine, commit=machine.commit or options.commit)
    sizes, on = (DRY, "dry-run") if options.demo else (Sizes(), None)
    asked = {name: getattr(options, name) for name in ("device", "demo", "only", "seconds")}

    def keep(rows: list[Row]) -> None:
        row = rows[-1]
        print(f"{row['step']:9}{row['outcome']:8}{row['took_s']:6.1f} s  {row.get('reason', '')}")
        took = round(time.monotonic() - options.began, 1)
        fields = {"options": asked, "took_s": took, "lines": lines(rows), "steps": rows}
        save("gpu", fields, options.out or RESULTS, on, machine)

    rows = run(options.device, sizes, options.began, options.seconds, chosen, keep)
    for name, figures in lines(rows).items():
        print(f"{name}: {figures}")
    return int(any(row["outcome"] != "ok" for row in rows))
