"""What is here, a checkpoint of true size, are vectors right? And the tests that need a GPU.

But for those that compile: for them there is no time.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time

import numpy as np
import torch

from bench.compare.baselines.bare import Bare
from bench.gpu.step import Row, Task
from bench.load.workload import Job, Workload
from bench.rig.random_checkpoint import DEMO, write_hub
from bench.rig.server_process import ROOT
from litapi.checkpoint import Checkpoint
from litapi.model.check import LEAST
from litapi.model.precision import require_device
from litapi.model.reference import Array, Reference
from litapi.quality.mistake import upright

EXACT = 0.9999  # float32
FILE = "tests/test_on_gpu.py"
COMMAND = ("-m", "pytest", FILE, "-m", "", "-k", "not compiled", "-v", "-p", "no:cacheprovider")
ENDED = re.compile(r"::\S+.* (PASSED|FAILED|ERROR|SKIPPED)\b")
CODES = (0, 1, 5)  # all passed, some failed, none is for this machine


def ready(task: Task) -> None:
    """Versions, the card, and the checkpoint in bfloat16, which is half as much to read."""
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    task.note(torch=torch.__version__, cuda=torch.version.cuda, cudnn=cudnn)
    require_device(task.device)
    if task.device != "cpu":
        card = torch.cuda.get_device_properties(task.device)
        task.note(card=card.name, card_gb=round(card.total_memory / 1e9, 1))
        task.note(capability=[card.major, card.minor], multiprocessors=card.multi_processor_count)
    began = time.monotonic()
    weights = ("siglit/random-weights", task.sizes.model, "bfloat16", task.device)
    folder = write_hub(task.home, *weights)
    task.note(written_s=round(time.monotonic() - began, 2), model=Checkpoint.open(folder).name)
    size = (folder / "model.safetensors").stat().st_size
    task.note(weights_mb=round(size / 1e6, 1), precision=task.ground.precision)


def smoke(task: Task) -> None:
    """The demo's vectors beside transformers' own, in float32 on the CPU, each item alone.

    Both towers: together, which pads pictures of unlike shapes, and one by one, which does not.
    """
    reference = Reference(Checkpoint.open(DEMO))
    for kind in Workload("mixed").kinds:
        job = Workload(kind, task.sizes.smoke, seed=1).job(1, 0)
        data = [item.data for item in job.items]
        if kind == "text":
            right = reference.texts([one.decode() for one in data], Reference.ids)
        else:
            right = reference.pictures(data, upright)
        for precision in dict.fromkeys(("float32", task.ground.precision)):
            tower = Bare(kind, DEMO, task.ground.threads(), precision, device=task.device)
            alone = [tower.embed(tower.prepare(Job(kind, [item]))) for item in job.items]
            found = {"together": tower.embed(tower.prepare(job)), "alone": np.concatenate(alone)}
            row: Row = {way: _worst(rows, right) for way, rows in found.items()}
            task.add("cosines", {"tower": kind, "precision": precision, **row})
            if min(row.values()) < LEAST.get(precision, EXACT):
                task.fault(f"wrong vectors of {kind} in {precision}: {row}")


def _worst(rows: Array, right: Array) -> float:
    """The least cosine; NaN is less than any."""
    return round(float(np.nan_to_num((rows * right).sum(axis=-1), nan=-1.0).min()), 6)


def suite(task: Task) -> None:
    """How many ended how, as they end; then the reasons of those that failed or were skipped."""
    counts = dict.fromkeys(("PASSED", "FAILED", "ERROR", "SKIPPED"), 0)
    command = [sys.executable, *COMMAND]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            if ended := ENDED.search(line):
                counts[ended[1]] += 1
                task.note(tests=counts)
            elif line.startswith(("FAILED ", "ERROR ")):
                task.fault(line.strip())
            elif line.startswith("SKIPPED "):
                task.add("skipped", line.strip())
    task.note(tests=counts)
    if process.returncode not in CODES:
        task.fault(f"pytest ended with {process.returncode}")
