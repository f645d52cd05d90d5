"""siglit beside the systems it would replace: named scenarios, round by round, with targets.

    python -m bench.compare demo-single latency
    python -m bench.compare base-text --systems siglit,litserve --levels 50,200 --rounds 1
    python -m bench.compare --report bench/results/compare-cpu.json      # the table anew

Writes NAME-DEVICE.json and .md into --out. Exit code 0: all targets met; 1: one missed; 2: a
point failed, of whichever system, or something impossible was asked for; 130: cut off by Ctrl-C or
SIGTERM, with the scenarios before in the file.
"""

from __future__ import annotations

import argparse
import functools
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.compare.baselines.system import Ground
from bench.compare.contestant import Contest
from bench.compare.proof import Proof
from bench.compare.result import Result, report
from bench.compare.scenario import BARE, READY, SCENARIOS
from bench.rig.command import described, failing, listed, positive
from bench.rig.machine import cores, installed
from bench.rig.random_checkpoint import checkpoint
from bench.rig.result_file import RESULTS, save
from litapi.checkpoint import CheckpointError
from litapi.process import raise_limit

PACKAGES = ["torch", "transformers", "litserve", "flask", "gunicorn", "gevent"]


class UsageError(Exception):
    """Options that name what there is not."""


def compare(options: argparse.Namespace, say: Callable[[str], object]) -> Path:
    """Measure. The file is written after each scenario: what was measured is kept."""
    shown = {name: value for name, value in vars(options).items() if name not in ("report", "out")}
    shown["checkpoint"] = shown["checkpoint"] and Path(shown["checkpoint"]).name
    result, proof = Result({**shown, "versions": installed(PACKAGES)}), functools.cache(Proof)
    bounds = (options.levels, options.rates, options.requests, options.seconds)
    for scenario in (SCENARIOS[name] for name in options.scenarios):
        folder = checkpoint(options.checkpoint or scenario.size)
        ground = Ground(folder, options.cores or cores(), options.device)
        parts = [part.changed(*bounds) for part in scenario.parts]
        contest = Contest(scenario, ground, result, say, options.systems)
        contest.run(parts, options.rounds, proof(folder))
        on = "cpu" if options.device == "cpu" else None  # the GPU's own name
        path = save(options.name, result.fields(), options.out, on)
    return path


def check(options: argparse.Namespace) -> None:
    """Raises UsageError or CheckpointError where the options name what there is not."""
    if not options.scenarios or {*options.scenarios} - SCENARIOS.keys():
        raise UsageError(f"name scenarios out of: {', '.join(SCENARIOS)}")
    parts = [part for name in options.scenarios for part in SCENARIOS[name].parts]
    known = {BARE, READY, *(one.name for part in parts for one in part.systems)}
    if unknown := {*options.systems} - known:
        raise UsageError(f"no such system in these scenarios: {', '.join(sorted(unknown))}")
    if options.device != "cpu":
        from litapi.model.precision import require_device  # torch: not for the generators

        require_device(options.device)


def parser() -> argparse.ArgumentParser:
    made = described("bench.compare", __doc__)
    add = made.add_argument
    add("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    add("--systems", type=listed(str), default=[], metavar="A[,B…]")
    add("--rounds", type=int, default=1)
    add("--requests", type=int, default=0, metavar="N", help="items of each level bound by them")
    add("--seconds", type=float, default=0.0, metavar="S", help="of each level bound by time")
    for name, kind in (("--levels", listed(positive(int))), ("--rates", listed(positive(float)))):
        add(name, type=kind, default=[], metavar="N[,N…]", help="in place of several")
    add("--checkpoint", metavar="demo|base|so400m|FOLDER", help="in place of the scenario's own")
    add("--device", default="cpu", help="or a GPU such as cuda:0, for all systems")
    add("--cores", type=int, default=0, metavar="N", help="to compute on; 0: all")
    add("--name", default="compare", help="of the result's files")
    add("--out", type=Path, default=RESULTS, metavar="FOLDER")
    add("--report", type=Path, metavar="FILE", help="measure nothing; show what the file holds")
    return made


def show(path: Path) -> int:
    """Table to stdout and beside the file; the exit code."""
    result = Result.read(path)
    text = report(result)
    path.with_suffix(".md").write_text(text + "\n")
    print(text)
    return result.code


@failing(UsageError, CheckpointError, OSError, ValueError, subprocess.CalledProcessError)
def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    raise_limit()
    if options.report:
        return show(options.report)
    check(options)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # or children stay
    try:
        return show(compare(options, functools.partial(print, file=sys.stderr, flush=True)))
    except KeyboardInterrupt:
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
