"""The towers without a server: batches, what the device waits for, padding; and compiled."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice

import torch
from torch.profiler import ProfilerActivity, profile

from bench.gpu.lines import Row
from bench.gpu.step import Task
from bench.load.photo import photo
from bench.load.workload import SIZES as SHAPES
from bench.offline.stopwatch import finish, per_second
from bench.offline.sweep import Plan, Series, clear, precision_rows
from bench.offline.tower import Tower
from litapi.checkpoint import Checkpoint
from litapi.model.engines import compiled as inductor
from litapi.model.pixels import PixelMaker, Pixels

PROFILED = 5  # runs
PARTS = 4  # batches of like cost


def eager(task: Task) -> None:
    """Both towers as they come, in torch on any device."""
    checkpoint, plan = Checkpoint.open(task.ground.checkpoint), _plan(task)
    (precision,) = plan.precisions
    for name, batches in plan.batches.items():
        clear(plan.device)
        tower = Tower(checkpoint, name, plan.device, precision, 0, engine="torch")
        for row in Series(tower, plan, precision).rows(batches):
            waits = {} if "refused" in row else waiting(tower, row, torch.device(plan.device))
            task.add("rows", {"tower": name, "precision": precision, **row, **waits})
        for mix in task.sizes.mixes if name == "image" else ():
            task.add("padding", padding(tower, checkpoint, task, mix))


def compiled(task: Task) -> None:
    """The image tower for batches of one size, then the same in float8, where the card has it."""
    checkpoint, plan = Checkpoint.open(task.ground.checkpoint), _plan(task)
    inductor.SIZES["image"] = (task.sizes.compiled,)
    plan = replace(plan, batches={"image": (task.sizes.compiled,)}, compiled=True)
    for precision in (*plan.precisions, "float8"):
        began = time.monotonic()
        rows = precision_rows(checkpoint, plan, "image", precision)
        took = {"compiled": True, "took_s": round(time.monotonic() - began, 1)}
        task.add("rows", *(row | took for row in rows))


def _plan(task: Task) -> Plan:
    sizes = task.sizes
    return Plan(
        batches={"image": sizes.images, "text": sizes.texts},
        precisions=(task.ground.precision,),
        threads=(0,),
        device=task.device,
        engine="torch",
        rounds=sizes.rounds,
        seconds=sizes.seconds,
    )


def waiting(tower: Tower, row: Row, device: torch.device) -> Row:
    """How long a batch keeps the device at work, and the share of its time in which it waits.

    The profiler slows the host, not the device, so the whole time is that of `row`. Where there is
    no GPU the operators of the CPU stand in for its kernels.
    """
    run, gpu = tower.batch(row["batch"]), device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=activities) as seen:
        for _ in range(PROFILED):
            run()
        finish(device)
    kind = "CUDA" if gpu else "CPU"
    work = [one for one in seen.key_averages() if one.device_type.name == kind]
    busy = sum(one.self_device_time_total if gpu else one.self_cpu_time_total for one in work)
    whole, device_ms = 1e3 * row["batch"] / row["items_per_s"]["median"], busy / PROFILED / 1e3
    return {
        "batch_ms": round(whole, 3),
        "device_ms": round(device_ms, 3),
        "kernels": round(sum(one.count for one in work) / PROFILED),
        "waiting": round(max(0.0, 1 - device_ms / whole), 3),
    }


def padding(tower: Tower, checkpoint: Checkpoint, task: Task, mix: Sequence[int]) -> Row:
    """What padding costs requests that ask for so many patches each and arrive together.

    Patches a second of one batch of all; of the same in batches of like cost; and of pictures that
    are all alike, which is all that packing without padding could reach.
    """
    maker, many = PixelMaker(checkpoint), task.sizes.mixed
    pictures = [photo(*shape) for shape in SHAPES]
    asked = islice(zip(cycle(pictures), cycle(mix), strict=False), many)
    pixels = [maker.make(*one) for one in asked]
    ordered = sorted(pixels, key=lambda one: one.cost)
    size = -(-many // PARTS)

    def rate(*batches: Sequence[Pixels]) -> float:
        def run() -> None:
            for batch in batches:
                tower.encoder.embed(batch)

        run()
        patches = sum(one.cost for batch in batches for one in batch)
        return round(patches * per_second(run, torch.device(task.device), task.sizes.seconds), 1)

    return {
        "max_num_patches": list(mix),
        "padding": round(1 - sum(one.cost for one in pixels) / (many * ordered[-1].cost), 4),
        "patches_per_s": rate(pixels),
        "by_cost_patches_per_s": rate(*(ordered[n : n + size] for n in range(0, many, size))),
        "alike_patches_per_s": rate([ordered[many // 2]] * many),
    }
