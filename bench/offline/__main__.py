"""What the towers give without a server, beside what the machine's matrix products allow.

    python -m bench.offline                              # the one command for any machine
    python -m bench.offline --model demo --batches 1,64 --precisions float32
    python -m bench.offline --gflop 80,160,320 --rounds 5   # how much a batch of a CPU should hold
    python -m bench.offline --report bench/results/offline-cpu.json

On a GPU the model is so400m-naflex in bfloat16 and float32, on a CPU base in every precision there
is. Both have random weights of the true size, made on the fly. The result is written to
offline-DEVICE.json. Exit code 0: measured; 2: the run failed, or the machine refused everything.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import orjson
import torch

from bench.offline.sweep import Plan, sweep, table
from bench.offline.tower import TOWERS
from bench.rig.command import described, failing, listed
from bench.rig.machine import cores
from bench.rig.random_checkpoint import SIZES, write_size
from bench.rig.result_file import RESULTS, save, slug
from litapi.checkpoint import Checkpoint, CheckpointError, fetch
from litapi.messages import KINDS
from litapi.model.encoder import PRECISIONS, choose_precision
from litapi.model.plan import batch_items

SHORT = {"base": "base-patch16-224", "so400m-naflex": "so400m-patch16-naflex"}
MODELS = {"cpu": "base", "cuda": "so400m-naflex"}
# Images gain nothing from a batch on a CPU, and one of 32 would take most of the time.
BATCHES: dict[str, dict[str, Sequence[int]]] = {
    "cpu": {"text": (1, 2, 8, 32), "image": (1, 2, 8)},
    "cuda": {"text": (1, 8, 32, 128, 512), "image": (1, 8, 32, 128, 256)},
}


@contextmanager
def opened(model: str) -> Iterator[Checkpoint]:
    """The checkpoint of a folder, the demo, a hub's name, or one of random weights.

    Raises CheckpointError where there is none.
    """
    size = SHORT.get(model, model)
    if size not in SIZES:
        yield Checkpoint.open(fetch("" if model == "demo" else model, None))
        return
    with tempfile.TemporaryDirectory() as folder:
        name = f"{size}, random weights"
        yield Checkpoint.open(write_size(Path(folder, size), size), name=name)


def kind_of(device: str) -> str:
    """`cpu` or `cuda`."""
    return device.partition(":")[0]


def planned(options: argparse.Namespace) -> Plan:
    """What was asked for, and for the rest what suits the device."""
    device: str = options.device
    if device == "auto":
        device = "cuda:0" if torch.cuda.is_available() else "cpu"
    gpu = kind_of(device) == "cuda"
    usual = BATCHES[kind_of(device)]
    return Plan(
        batches={tower: options.batches or usual[tower] for tower in options.towers},
        precisions=options.precisions or (("bfloat16", "float32") if gpu else PRECISIONS),
        threads=options.threads or ((0,) if gpu else sorted({1, cores()})),
        device=device,
        rounds=options.rounds,
        seconds=options.seconds,
        longest=options.longest,
    )


class NothingMeasured(Exception):
    """The machine refused everything; a result that was there is left as it was."""


def measure(model: str, plan: Plan, out: Path, gflop: Sequence[float] = ()) -> Path:
    """Run a plan and keep the result; `gflop`, where there are any, decide the batches.

    Raises:
        CheckpointError: there is no such checkpoint or device.
        NothingMeasured: all was refused.
    """
    choose_precision("float32", plan.device)  # before gigabytes are written for nothing
    with opened(model) as checkpoint:
        if gflop:
            plan = replace(plan, batches=batches_of(checkpoint, plan, gflop))
        rows = sweep(checkpoint, plan)
        name = checkpoint.name
    if all("refused" in row for row in rows):
        raise NothingMeasured(" ".join(sorted({row["refused"] for row in rows})))
    cpu = plan.device == "cpu"  # torch names the card: nvidia-smi is not in every container
    device = "cpu" if cpu else torch.cuda.get_device_name(plan.device)
    fields = {"model": name, **asdict(plan), "device_name": device, "rows": rows}
    return save("offline", fields, out, measured_on=slug(device))


def batches_of(
    checkpoint: Checkpoint, plan: Plan, gflop: Sequence[float]
) -> dict[str, Sequence[int]]:
    """As large as a worker on a CPU would make them, were its rule so many GFLOP."""
    return {
        kind: sorted({batch_items(checkpoint.gflop(kind), one) for one in gflop})
        for kind in KINDS
        if kind in plan.batches
    }


def show(path: Path) -> None:
    result = orjson.loads(path.read_bytes())
    on = result["machine"]["cpu"] if result["device"] == "cpu" else result["device_name"]
    print(f"{result['model']}, {on}", "", table(result["rows"]), sep="\n")


def parser() -> argparse.ArgumentParser:
    parser = described("bench.offline", __doc__)
    add = parser.add_argument
    add("--model", metavar="NAME", help=f"folder, demo, {', '.join(SHORT)}, {', '.join(SIZES)}")
    add("--towers", type=listed(str), default=TOWERS, metavar="NAME,…")
    add("--batches", type=listed(int), metavar="N,…", help="of both towers")
    add("--gflop", type=listed(float), metavar="N,…", help="of a batch, in place of --batches")
    add("--precisions", type=listed(str), metavar="NAME,…", help=", ".join(PRECISIONS))
    add("--threads", type=listed(int), metavar="N,…", help="of torch; default on a CPU: 1 and all")
    add("--device", default="auto", help="auto, cpu, or a GPU such as cuda:0")
    add("--rounds", type=int, default=3)
    add("--seconds", type=float, default=1.0, help="of one slice")
    add("--longest", type=float, default=20.0, help="seconds a batch may take, or is left out")
    add("--out", type=Path, metavar="DIR", default=RESULTS, help="folder of the result")
    add("--report", type=Path, metavar="FILE", help="show a result again; measures nothing")
    return parser


@failing(CheckpointError, NothingMeasured)
def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser()
    options = asked.parse_args(arguments)
    if unknown := set(options.towers) - set(TOWERS):
        asked.error(f"there is no tower {', '.join(sorted(unknown))}")
    if kind_of(options.device) not in ("auto", *MODELS):
        asked.error(f"there is no device {options.device}")
    path = options.report
    if not path:
        plan = planned(options)
        model = options.model or MODELS[kind_of(plan.device)]
        path = measure(model, plan, options.out, options.gflop or ())
    show(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
