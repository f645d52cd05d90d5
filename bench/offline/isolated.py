"""One tower in one precision, in a process of its own, as its memory is to be its own.

The process loads, runs every batch once, says what it holds and what vectors it makes, and then
does a slice of work whenever it is asked, so that systems can take turns.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from bench.offline.tower import BASELINE, OnnxTower, PlainTower, Rival, StockTower, Tower, Vectors
from bench.rig.command import per_second
from litapi.checkpoint import Checkpoint, CheckpointError

STOCK = "stock OpenVINO"
ONNX = "ONNX Runtime"
T = TypeVar("T")


class SystemFailed(Exception):
    """A process that was to be measured ended."""


@dataclass(frozen=True, slots=True)
class System:
    """What is measured. `precision` BASELINE is transformers' own model, both towers, float32.

    `engine` is "" for siglit as it comes, "torch" for siglit in torch, STOCK or ONNX for a rival.
    """

    tower: str
    precision: str
    engine: str = ""

    @property
    def name(self) -> str:
        return f"{self.precision} {self.engine}".rstrip()


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a process says once it can work: bytes resident, and those that no other one shares."""

    seconds: float
    resident: int
    private: int
    vectors: Vectors


class Running:
    """A system in its process. A context manager; `refused` says why it does not run here."""

    def __init__(self, system: System, folder: Path, batches: Sequence[int], threads: int) -> None:
        self.system = system
        self.rates: dict[int, list[float]] = {batch: [] for batch in batches}
        self.loaded: Loaded | None = None
        self.refused = ""
        self._asked = (system, folder, tuple(batches), threads)

    def __enter__(self) -> Self:
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        said = self._done(_load, *self._asked)
        if isinstance(said, str):
            self.refused = said
            self._pool.shutdown()
        else:
            self.loaded = said
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def measure(self, batch: int, seconds: float) -> None:
        self.rates[batch].append(self._done(_slice, batch, seconds))

    def _done(self, work: Callable[..., T], *arguments: Any) -> T:
        try:
            return self._pool.submit(work, *arguments).result()
        except Exception as error:
            self._pool.shutdown()
            failed = f"{self.system.tower} {self.system.name} ended: {error}"
            raise SystemFailed(failed) from None


_ready: dict[int, Callable[[], Any]] = {}  # batches of the one system of this process


def _load(system: System, folder: Path, batches: Sequence[int], threads: int) -> Loaded | str:
    import psutil
    import torch

    torch.set_num_threads(threads)
    checkpoint, itself = Checkpoint.open(folder), psutil.Process()
    try:
        tower = _loaded(system, checkpoint, threads)
    except CheckpointError as error:
        return str(error)
    _ready.update({batch: tower.batch(batch) for batch in batches})
    vectors = [embed() for embed in _ready.values()][-1]
    memory, began = itself.memory_full_info(), itself.create_time()
    return Loaded(time.time() - began, memory.rss, memory.uss, vectors)


def _slice(batch: int, seconds: float) -> float:
    return batch * per_second(_ready[batch], seconds)


def _loaded(system: System, checkpoint: Checkpoint, threads: int) -> Tower | PlainTower | Rival:
    from litapi.model.precision import choose_precision

    if system.precision == BASELINE:
        return PlainTower(checkpoint, system.tower)
    engine = system.engine or "auto"
    if engine == STOCK:
        return StockTower(checkpoint, system.tower, choose_precision(system.precision, "cpu"))
    if engine == ONNX:
        return OnnxTower(checkpoint, system.tower, threads)
    precision = choose_precision(system.precision, "cpu", engine)
    return Tower(checkpoint, system.tower, "cpu", precision, threads, engine=engine)
