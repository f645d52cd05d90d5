"""What the large parts of a layer cost on this device: products, attention, what is moved.

Attention goes each of torch's ways, with a mask (pictures of unlike shapes) and without, and over
shapes that were never seen: a way that plans for each of them stops an eager tower every time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from time import perf_counter

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from bench.gpu.lines import Row
from bench.gpu.step import Task
from bench.offline.stopwatch import each, finish, multiplied
from bench.offline.sweep import first_line

WAYS = {
    "torch's choice": None,
    "flash": SDPBackend.FLASH_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "plain": SDPBackend.MATH,
}
UNSEEN = (1, 2, 3)  # fewer pictures and patches


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
