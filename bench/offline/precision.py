"""Every precision of siglit as it comes, beside what it replaces, its rivals and a plain service.

    python -m bench.offline.precision                                  # base, random weights
    python -m bench.offline.precision --model demo --rounds 2 --seconds 0.2

On the CPU. Each tower × system is a process of its own, and they take turns, round after round. The
ratio of a row is to AutoModel's get_text_features or get_image_features in float32, on what
transformers' processor makes; the targets compare siglit as it comes with its towers in torch and
with stock OpenVINO. All sides get their input ready. Quality is the gate's, on the demo checkpoint,
as it alone is trained. What this machine refuses is a row with the reason. Exit code 0: all targets
that are possible here were met; 1: not; 2: the run failed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from bench.offline.__main__ import opened
from bench.offline.isolated import ONNX, STOCK, Running, System, SystemFailed
from bench.offline.report import lines, refusals
from bench.offline.tower import BASELINE, TOWERS
from bench.rig.command import Spread, Target, concluded, measuring, ratio
from bench.rig.machine import cores
from litapi.checkpoint import DEMO, Checkpoint, CheckpointError
from litapi.model.precision import PRECISIONS
from litapi.quality.gate import Gate
from litapi.settings import Settings

Row = dict[str, Any]
BATCHES = (1, 8)
BAR: dict[str, Any] = {"unit": "system", "leave": False, "disable": None}
RIVALS = tuple((one, engine) for engine in ("torch", STOCK) for one in ("float32", "bfloat16"))
RIVALS += (("float32", ONNX),)
# (system, what it is compared with) → how many times as many items a second, by tower and batch
Which = tuple[str, str]  # precision and engine, as of a System
WANTED: dict[tuple[Which, Which], dict[str, tuple[float, float]]] = {
    (("bfloat16", ""), ("bfloat16", "torch")): {"image": (1.3, 1.3), "text": (1.6, 1.15)},
    (("int8", ""), ("bfloat16", "torch")): {"image": (1.7, 1.9), "text": (2.2, 1.8)},
    (("float32", ""), ("float32", "torch")): {"image": (1.1, 1.1), "text": (1.1, 1.1)},
    (("bfloat16", ""), ("bfloat16", STOCK)): {"image": (1.05, 1.05), "text": (1.05, 1.05)},
    (("float32", ""), ("float32", STOCK)): {"image": (1.05, 1.05), "text": (1.05, 1.05)},
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
        row["engine"] = system.engine
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


def judged(towers: Sequence[Sequence[Running]]) -> tuple[list[Target], list[str]]:
    """The targets, and those that this machine cannot be held to, with the reason."""
    targets, impossible = [], []
    for one in towers:
        found = {(each.system.precision, each.system.engine): each for each in one}
        for (which, other), wanted in WANTED.items():
            if which not in found or other not in found:
                continue
            faster, slower = found[which], found[other]
            name = f"{faster.system.tower} {faster.system.name} ÷ {slower.system.name}"
            if refused := faster.refused or slower.refused:
                impossible.append(f"not possible here  {name}: {refused}")
                continue
            for batch, least in zip(BATCHES, wanted[faster.system.tower], strict=True):
                found_ratio = ratio(faster.rates[batch], slower.rates[batch])
                targets.append(Target(f"{name}, batch {batch}", found_ratio, at_least=least))
    return targets, impossible


def baseline_of(tower: str) -> System:
    """What every system of a tower is compared with."""
    return System(tower, BASELINE)


def measure_tower(checkpoint: Checkpoint, tower: str, options: argparse.Namespace) -> list[Running]:
    """All systems of a tower, the baseline first; they have ended when this returns."""
    others = [System(tower, *one) for one in (*((name, "") for name in PRECISIONS), *RIVALS)]
    with ExitStack() as stack:
        running = []
        for system in tqdm([baseline_of(tower), *others], desc=f"loading {tower}", **BAR):
            one = Running(system, checkpoint.folder, BATCHES, options.threads)
            running.append(stack.enter_context(one))
        able = [one for one in running if one.loaded]
        turns = [(one, batch) for _ in range(options.rounds) for batch in BATCHES for one in able]
        for one, batch in tqdm(turns, desc=f"measuring {tower}", **BAR):
            one.measure(batch, options.seconds)
    return running


def measure(options: argparse.Namespace) -> tuple[str, list[list[Running]]]:
    """The name of the model, and the systems of each tower."""
    with opened(options.model) as checkpoint:
        towers = [measure_tower(checkpoint, tower, options) for tower in TOWERS]
        return checkpoint.name, towers


def qualities(towers: Sequence[Sequence[Running]], threads: int) -> dict[str, Row]:
    """By precision, of those that run here as siglit comes."""
    able = {one.system.precision for tower in towers for one in tower[1:] if one.loaded}
    return {name: _quality(name, threads) for name in tqdm(sorted(able), desc="quality", **BAR)}


def _quality(precision: str, threads: int) -> Row:
    """The gate's figures of both towers, in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_judged, precision, threads).result()


def _judged(precision: str, threads: int) -> Row:
    asked = Settings.model_validate({"precision": precision, "threads": threads})
    return Gate(asked, Checkpoint.open(DEMO), "cpu").judge().fields()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = measuring("bench.offline.precision", __doc__, 3, 1.0, "of one slice, or a batch")
    parser.add_argument("--model", default="base", help="base, demo, a size, a folder, a name")
    parser.add_argument("--threads", type=int, default=cores(), help="of an engine")
    options = parser.parse_args(arguments)
    try:
        name, towers = measure(options)
        quality = qualities(towers, options.threads)
    except (CheckpointError, SystemFailed) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    measured = [
        Measured(one, tower[0], None if one.system.engine else quality.get(one.system.precision))
        for tower in towers
        for one in tower
    ]
    rows = [one.row() for one in measured]
    targets, impossible = judged(towers)
    fields = {
        "model": name,
        "baseline": "AutoModel, float32, eager",
        "threads": options.threads,
        "rows": rows,
        "not_possible_here": impossible,
    }
    code = concluded("precision", options, lines(rows), targets, fields, measured_on="cpu")
    print(*refusals(rows), *impossible, sep="\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
