"""Every precision, compiled and not, beside the model that a plain Flask service would have loaded.

    python -m bench.offline.precision                                  # base, random weights
    python -m bench.offline.precision --model demo --rounds 2 --seconds 0.2

On the CPU. Each tower × precision × compiling is a process of its own, and they take turns, round
after round; the ratio is to AutoModel's get_text_features or get_image_features in float32, on what
transformers' processor makes. Both sides get their input ready. Quality is the gate's, on the demo
checkpoint, as it alone is trained. What this machine refuses is a row with the reason. Exit code 0:
all targets that are possible here were met; 1: not; 2: the run failed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bench.offline.__main__ import opened
from bench.offline.isolated import Running, System, SystemFailed
from bench.offline.report import lines, refusals
from bench.offline.tower import BASELINE, TOWERS
from bench.rig.command import concluded, measuring
from bench.rig.machine import cores
from bench.rig.rounds import Spread, Target, ratio
from litapi.checkpoint import DEMO, Checkpoint, CheckpointError
from litapi.model.precision import PRECISIONS
from litapi.quality.gate import Gate
from litapi.settings import Settings

Row = dict[str, Any]
BATCHES = (1, 8)
BAR: dict[str, Any] = {"unit": "system", "leave": False, "disable": None}
# (precision, compiled, tower) → how many times as many items a second as the baseline
WANTED = {
    ("bfloat16", False, "image"): 1.5,
    ("bfloat16", False, "text"): 1.5,
    ("bfloat16", True, "image"): 1.7,
    ("bfloat16", True, "text"): 1.7,
    ("int8", True, "image"): 2.8,
    ("int8", True, "text"): 2.2,
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One system beside the baseline of its tower. `quality` are the gate's figures, or None."""

    running: Running
    baseline: Running
    quality: Mapping[str, Any] | None

    def row(self) -> Row:
        system, loaded = self.running.system, self.running.loaded
        row: Row = {"tower": system.tower, "precision": system.precision}
        row["compiled"] = system.compiled
        if loaded is None:
            return {**row, "refused": self.running.refused}
        row |= {
            "batches": {str(batch): self._figures(batch) for batch in self.running.rates},
            "resident_mb": round(loaded.resident / 1e6),
            "private_mb": round(loaded.private / 1e6),
            "load_s": round(loaded.seconds, 1),
            "cosine": self._cosine(),
        }
        return {**row, "demo_quality": self.quality} if self.quality else row

    def ratio(self, batch: int) -> float:
        """To the baseline, within the rounds."""
        return ratio(self.running.rates[batch], self.baseline.rates[batch])

    def _figures(self, batch: int) -> Row:
        rates = Spread.of(self.running.rates[batch]).fields()
        return {"items_per_s": rates, "ratio": round(self.ratio(batch), 3)}

    def _cosine(self) -> dict[str, float]:
        if self.running.loaded is None or self.baseline.loaded is None:
            raise ValueError("only what was loaded has vectors")
        rows = (self.running.loaded.vectors * self.baseline.loaded.vectors).sum(axis=-1)
        return {"mean": round(float(rows.mean()), 7), "worst": round(float(rows.min()), 7)}

    @property
    def _wanted(self) -> float | None:
        system = self.running.system
        return WANTED.get((system.precision, system.compiled, system.tower))

    def targets(self) -> list[Target]:
        """What this system was meant to reach, at each batch; none where it was refused."""
        system = self.running.system
        if self._wanted is None or self.running.loaded is None:
            return []
        return [
            Target(f"{system.tower} {system.name}, batch {b}", self.ratio(b), at_least=self._wanted)
            for b in self.running.rates
        ]

    def impossible(self) -> str:
        """The line of a target that this machine cannot be held to; empty where there is none."""
        system = self.running.system
        if self._wanted is None or self.running.loaded is not None:
            return ""
        named = f"{system.tower} {system.name} (≥ {self._wanted:g})"
        return f"not possible here  {named}: {self.running.refused}"


def baseline_of(tower: str) -> System:
    """What every system of a tower is compared with."""
    return System(tower, BASELINE)


def measure_tower(
    checkpoint: Checkpoint, tower: str, options: argparse.Namespace, cache: Path
) -> list[Running]:
    """All systems of a tower, the baseline first; they have ended when this returns."""
    others = [System(tower, one, compiled) for one in PRECISIONS for compiled in options.compiling]
    with ExitStack() as stack:
        running = []
        for system in tqdm([baseline_of(tower), *others], desc=f"loading {tower}", **BAR):
            one = Running(system, checkpoint.folder, BATCHES, options.threads, cache)
            running.append(stack.enter_context(one))
        able = [one for one in running if one.loaded]
        turns = [(one, batch) for _ in range(options.rounds) for batch in BATCHES for one in able]
        for one, batch in tqdm(turns, desc=f"measuring {tower}", **BAR):
            one.measure(batch, options.seconds)
    return running


def measure(options: argparse.Namespace) -> tuple[str, list[Measured]]:
    """The name of the model, and every system beside its baseline."""
    cache = Settings().compile_folder / "inductor"
    with opened(options.model) as checkpoint:
        towers = [measure_tower(checkpoint, tower, options, cache) for tower in TOWERS]
        name = checkpoint.name
    able = [one.system for tower in towers for one in tower[1:] if one.loaded]
    found: dict[tuple[str, bool], Row] = {}
    for one in tqdm(able, desc="quality", **BAR):
        if (one.precision, one.compiled) not in found:
            found[one.precision, one.compiled] = _quality(one, options.threads)
    return name, [
        Measured(one, tower[0], found.get((one.system.precision, one.system.compiled)))
        for tower in towers
        for one in tower
    ]


def _quality(system: System, threads: int) -> Row:
    """The gate's figures of both towers, in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_judged, system.precision, system.compiled, threads).result()


def _judged(precision: str, compiled: bool, threads: int) -> Row:
    asked = {"precision": precision, "compile": "on" if compiled else "off", "threads": threads}
    return Gate(Settings.model_validate(asked), Checkpoint.open(DEMO), "cpu").judge().fields()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = measuring("bench.offline.precision", __doc__, 3, 1.0, "of one slice, or a batch")
    parser.add_argument("--model", default="base", help="base, demo, a size, a folder, a name")
    parser.add_argument("--threads", type=int, default=cores(), help="of torch")
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    options = parser.parse_args(arguments)
    options.compiling = (False,) if options.eager else (False, True)
    try:
        name, measured = measure(options)
    except (CheckpointError, SystemFailed) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    rows = [one.row() for one in measured]
    impossible = [line for one in measured if (line := one.impossible())]
    fields = {
        "model": name,
        "baseline": "AutoModel, float32, eager",
        "threads": options.threads,
        "rows": rows,
        "not_possible_here": impossible,
    }
    targets = [target for one in measured for target in one.targets()]
    code = concluded("precision", options, lines(rows), targets, fields, measured_on="cpu")
    print(*refusals(rows), *impossible, sep="\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
