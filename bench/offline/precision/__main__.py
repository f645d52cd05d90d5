"""Every precision, compiled and not, beside the model that a plain Flask service would have loaded.

    python -m bench.offline.precision                                  # base, random weights
    python -m bench.offline.precision --model demo --rounds 2 --seconds 0.2

On the CPU. Each tower × precision × compiling is a process of its own, and they take turns, round
after round; the ratio is to AutoModel's get_text_features or get_image_features in float32, on what
transformers' processor makes. Both sides get their input ready. Quality is the gate's, on the demo
checkpoint, for it alone is trained. What this machine refuses is a row with the reason. Exit code
0: all targets that are possible here were met; 1: not; 2: the run failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bench.offline.__main__ import opened
from bench.offline.precision.quality import qualities
from bench.offline.precision.report import Measured, baseline_of, table
from bench.offline.precision.system import Running, System, SystemFailed
from bench.rig.machine import cores
from bench.rig.result_file import RESULTS, save
from litapi.checkpoint import Checkpoint, CheckpointError
from litapi.model.precision import PRECISIONS
from litapi.settings import Settings

TOWERS = ("text", "image")
BATCHES = (1, 8)
BAR: dict[str, Any] = {"unit": "system", "leave": False, "disable": None}


def systems(tower: str, compiling: Sequence[bool]) -> list[System]:
    """The baseline first."""
    others = [System(tower, one, compiled) for one in PRECISIONS for compiled in compiling]
    return [baseline_of(tower), *others]


def measure_tower(
    checkpoint: Checkpoint, tower: str, options: argparse.Namespace, cache: Path
) -> list[Running]:
    """All systems of a tower, measured in turns; they have ended when this returns."""
    with ExitStack() as stack:
        running = []
        for system in tqdm(systems(tower, options.compiling), desc=f"loading {tower}", **BAR):
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
    quality = qualities(able, options.threads)
    return name, [
        Measured(one, tower[0], quality.get((one.system.precision, one.system.compiled)))
        for tower in towers
        for one in tower
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser("python -m bench.offline.precision", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", default="base", help="base, demo, a size, a folder, a name")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one slice, at least a batch")
    parser.add_argument("--threads", type=int, default=cores(), help="of torch")
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    options = parser.parse_args(arguments)
    options.compiling = (False,) if options.eager else (False, True)
    try:
        name, measured = measure(options)
    except (CheckpointError, SystemFailed) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    rows = [one.row() for one in measured]
    judged = [target for one in measured for target in one.targets()]
    impossible = [line for one in measured if (line := one.impossible())]
    print("\n".join([table(rows), "", *(one.line() for one in judged), *impossible]))
    fields = {
        "model": name,
        "baseline": "AutoModel, float32, eager",
        "rounds": options.rounds,
        "seconds": options.seconds,
        "threads": options.threads,
        "rows": rows,
        "targets": [one.fields() for one in judged],
        "not_possible_here": impossible,
    }
    save("precision", fields, options.out, measured_on="cpu")
    return 0 if all(one.met for one in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
