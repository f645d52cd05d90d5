"""The steps in their order, each within the time planned for it, and the file after each."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.gpu.lines import lines
from bench.gpu.sizes import DRY, Sizes
from bench.gpu.step import Row, Step, Task
from bench.rig.machine import Machine
from bench.rig.result_file import RESULTS, save
from litapi.process import raise_limit

STEPS = (
    Step("ready", "bench.gpu.ready:ready", seconds=42, least=10),
    Step("smoke", "bench.gpu.ready:smoke", seconds=20, least=10),
    Step("micro", "bench.gpu.micro:micro", seconds=30, least=12),
    Step("eager", "bench.gpu.towers:eager", seconds=75, least=30),
    Step("images", "bench.gpu.served:images", seconds=135, least=45),
    Step("texts", "bench.gpu.served:texts", seconds=65, least=40),
    Step("compiled", "bench.gpu.towers:compiled", seconds=110, least=40),
    Step("tests", "bench.gpu.suite:suite", seconds=55, least=30),
)
PLANNED = sum(step.seconds for step in STEPS)


@dataclass(slots=True)
class Run:
    """What one step leaves of its time goes to those after it."""

    device: str
    sizes: Sizes
    began: float
    seconds: float  # in all
    steps: Sequence[Step] = STEPS
    rows: list[Row] = field(default_factory=list)

    def run(self, keep: Callable[[list[Row]], object]) -> None:
        """Play all steps; `keep` is called with the rows after each."""
        scale, ends = self.seconds / PLANNED, self.began
        with tempfile.TemporaryDirectory(prefix="bench-gpu-") as home:
            for step in self.steps:
                ends += step.seconds * scale
                path = Path(home) / f"{step.name}.json"
                task = Task(self.device, self.sizes, Path(home), ends, path)
                self.rows.append(self._row(step, task, step.least * min(1.0, scale)))
                keep(self.rows)

    def _row(self, step: Step, task: Task, least: float) -> Row:
        left = task.ends - time.monotonic()
        if left >= least:
            return step.play(task)
        reason = f"{left:.0f} s were left, and it takes {least:.0f} or more"
        return {"step": step.name, "outcome": "skipped", "reason": reason, "took_s": 0.0}


def start(options: argparse.Namespace) -> int:
    """Run what was asked for, print it and keep it; the exit code."""
    raise_limit()
    named = [name for name in options.only.split(",") if name]
    if unknown := {*named} - {step.name for step in STEPS}:
        print(f"bench: there is no step {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    chosen = [step for step in STEPS if step.name in ("ready", *(named or [step.name]))]
    machine = Machine.read()
    machine = replace(machine, commit=machine.commit or options.commit)
    sizes, on = (DRY, "dry-run") if options.demo else (Sizes(), None)
    run = Run(options.device, sizes, options.began, options.seconds, chosen)
    asked = {name: getattr(options, name) for name in ("device", "demo", "only", "seconds")}

    def keep(rows: list[Row]) -> None:
        row = rows[-1]
        print(f"{row['step']:9}{row['outcome']:8}{row['took_s']:6.1f} s  {row.get('reason', '')}")
        took = round(time.monotonic() - options.began, 1)
        fields = {"options": asked, "took_s": took, "lines": lines(rows), "steps": rows}
        save("gpu", fields, options.out or RESULTS, on, machine)

    run.run(keep)
    for name, figures in lines(run.rows).items():
        print(f"{name}: {figures}")
    return int(any(row["outcome"] != "ok" for row in run.rows))
