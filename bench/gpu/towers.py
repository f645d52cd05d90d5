"""The towers without a server: batches, what the device waits for, padding; and compiled.

And what the large parts of a layer cost: products, attention, what is moved. Attention goes each of
torch's ways, with a mask (pictures of unlike shapes) and without, and over shapes that were never
seen: a way that plans for each of them stops an eager tower every time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import cycle, islice
from time import perf_counter

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.profiler import ProfilerActivity, profile

from bench.gpu.step import Row, Task
from bench.load.photo import photo
from bench.load.workload import SIZES as SHAPES
from bench.offline.stopwatch import each, finish, multiplied, per_second
from bench.offline.sweep import Plan, Series, clear, first_line, precision_rows
from bench.offline.tower import Tower
from litapi.checkpoint import Checkpoint
from litapi.model.engines import compiled as inductor
from litapi.model.pixels import PixelMaker, Pixels

PROFILED = 5  # runs
PARTS = 4  # batches of like cost
WAYS = {
    "torch's choice": None,
    "flash": SDPBackend.FLASH_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "plain": SDPBackend.MATH,
}
UNSEEN = (1, 2, 3)  # fewer pictures and patches


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


def micro(task: Task) -> None:
    """All parts; what the device refuses says why."""
    parts = Micro(task)
    for output in task.sizes.outputs:
        task.add("products", parts.product(output))
    for way in WAYS:
        for masked in (False, True):
            task.add("attention", {"way": way, "masked": masked, **parts.attention(way, masked)})
    parts.moves(task)


class Micro:
    """The parts at the sizes of a task, in the numbers that its towers multiply."""

    def __init__(self, task: Task) -> None:
        self._sizes = task.sizes
        self._device = torch.device(task.device)
        self._dtype = multiplied(task.ground.precision)

    def product(self, output: int) -> Row:
        """One of a layer's: rows × width by width × output."""
        rows, width = self._sizes.rows, self._sizes.model.width
        states, weight = self._noise(rows, width), self._noise(output, width)
        row = self._timed(lambda: torch.mm(states, weight.T))
        row["gflop_per_s"] = round(2 * rows * width * output / row["ms"] / 1e6, 1)
        return {"rows": rows, "width": width, "output": output, **row}

    def attention(self, way: str, masked: bool) -> Row:
        """Milliseconds of a call, and of the first one of each unseen shape."""
        items, heads, patches, size = self._sizes.attention
        backend = WAYS[way]

        def call(fewer: int) -> Callable[[], object]:
            shape = (items - fewer, patches - fewer, heads, size)
            query, key, value = (self._noise(*shape).transpose(1, 2) for _ in range(3))
            mask = self._noise(shape[0], 1, 1, shape[1]) > -1 if masked else None
            return lambda: scaled_dot_product_attention(query, key, value, mask)

        with torch.inference_mode(), sdpa_kernel(backend) if backend else nullcontext():
            row = self._timed(call(0))
            if "refused" not in row:
                row["first_ms"] = [self._once(call(fewer)) for fewer in UNSEEN]
        return row

    def moves(self, task: Task) -> None:
        """A batch of levels to the device, made into values there, and its vectors back."""
        model = self._sizes.model
        levels = torch.randint(0, 256, (self._sizes.rows * model.patch**2 * 3,), dtype=torch.uint8)
        there, table = levels.to(self._device), self._noise(256)
        vectors = self._noise(self._sizes.attention[0], model.width)
        moves: dict[str, Callable[[], object]] = {
            "upload": lambda: there.copy_(levels),
            "upload, pinned": lambda: there.copy_(pinned, non_blocking=True),
            "values by table": lambda: table.index_select(0, there.int()),
            "values by sums": lambda: there.to(self._dtype) * 0.0078 - 1.0,
            "vectors to the host": lambda: vectors.float().cpu(),
        }
        pinned = levels.pin_memory() if task.ground.gpu else levels  # a CPU has nothing to pin for
        for name, run in moves.items():
            task.add("moves", {"what": name, "levels": len(levels), **self._timed(run)})

    def _noise(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, device=self._device).to(self._dtype)

    def _timed(self, run: Callable[[], object]) -> Row:
        try:
            return {"ms": round(1e3 * each(run, self._device, self._sizes.seconds), 5)}
        except RuntimeError as error:
            return {"refused": first_line(error)}

    def _once(self, run: Callable[[], object]) -> float:
        finish(self._device)
        began = perf_counter()
        run()
        finish(self._device)
        return round(1e3 * (perf_counter() - began), 3)
