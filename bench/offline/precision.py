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
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from typing import Any

from tqdm import tqdm

from bench.offline.__main__ import opened
from bench.offline.isolated import ONNX, STOCK, Running, System, SystemFailed
from bench.offline.sweep import lines, refusals
from bench.offline.tower import BASELINE, TOWERS
from bench.rig.command import Spread, Target, concluded, failing, measuring, ratio
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


def row(one: Running, baseline: Running, quality: Row | None) -> Row:
    """One system beside the baseline of its tower. `quality` are the gate's figures, or None."""
    system, loaded = one.system, one.loaded
    named = {"tower": system.tower, "precision": system.precision, "engine": system.engine}
    if loaded is None or baseline.loaded is None:
        return {**named, "refused": one.refused}
    cosines = (loaded.vectors * baseline.loaded.vectors).sum(axis=-1)
    figures = {
        "batches": {str(n): _figures(rates, baseline.rates[n]) for n, rates in one.rates.items()},
        "resident_mb": round(loaded.resident / 1e6),
        "private_mb": round(loaded.private / 1e6),
        "load_s": round(loaded.seconds, 1),
        "cosine": {
            "mean": round(float(cosines.mean()), 7),
            "worst": round(float(cosines.min()), 7),
        },
    }
    return named | figures | ({"demo_quality": quality} if quality else {})


def _figures(rates: Sequence[float], baseline: Sequence[float]) -> Row:
    return {"items_per_s": Spread.of(rates).fields(), "ratio": round(ratio(rates, baseline), 3)}


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


def measure_tower(checkpoint: Checkpoint, tower: str, options: argparse.Namespace) -> list[Running]:
    """All systems of a tower, the baseline first; they have ended when this returns."""
    others = [System(tower, *one) for one in (*((name, "") for name in PRECISIONS), *RIVALS)]
    with ExitStack() as stack:
        running = []
        for system in tqdm([System(tower, BASELINE), *others], desc=f"loading {tower}", **BAR):
            one = Running(system, checkpoint.folder, BATCHES, options.threads)
            running.append(stack.enter_context(one))
        able = [one for one in running if one.loaded]
        turns = [(one, batch) for _ in range(options.rounds) for batch in BATCHES for one in able]
        for one, batch in tqdm(turns, desc=f"measuring {tower}", **BAR):
            one.measure(batch, options.seconds)
    return running


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


@failing(CheckpointError, SystemFailed)
def main(arguments: Sequence[str] | None = None) -> int:
    parser = measuring("bench.offline.precision", __doc__, 3, 1.0, "of one slice, or a batch")
    parser.add_argument("--model", default="base", help="base, demo, a size, a folder, a name")
    parser.add_argument("--threads", type=int, default=cores(), help="of an engine")
    options = parser.parse_args(arguments)
    with opened(options.model) as checkpoint:
        towers = [measure_tower(checkpoint, tower, options) for tower in TOWERS]
    quality = qualities(towers, options.threads)
    rows = [
        row(one, tower[0], None if one.system.engine else quality.get(one.system.precision))
        for tower in towers
        for one in tower
    ]
    targets, impossible = judged(towers)
    fields = {
        "model": checkpoint.name,
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
