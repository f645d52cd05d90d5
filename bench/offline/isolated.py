"""One tower in one precision, in a process of its own, as its memory is to be its own.

The process loads, runs every batch once, says what it holds and what vectors it makes, and then
does a slice of work whenever it is asked, so that systems can take turns.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

from bench.offline.tower import BASELINE, OnnxTower, PlainTower, Rival, StockTower, Tower, Vectors
from litapi.checkpoint import Checkpoint, CheckpointError

STOCK = "stock OpenVINO"
ONNX = "ONNX Runtime"
GRACE = 10.0  # seconds for a process to end by itself


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
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        work = (theirs, system, folder, tuple(batches), threads)
        self._process = context.Process(target=_work, args=work, daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        said = self._heard()
        if isinstance(said, str):
            self.refused = said
        else:
            self.loaded = said
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # one that refused has ended by itself
            self._pipe.send(None)
        self._process.join(GRACE)
        self._process.kill()
        self._process.join()

    def measure(self, batch: int, seconds: float) -> None:
        self._pipe.send((batch, seconds))
        self.rates[batch].append(self._heard())

    def _heard(self) -> Any:
        try:
            while not self._pipe.poll(1.0):
                if not self._process.is_alive():
                    raise EOFError
            return self._pipe.recv()
        except EOFError:
            raise SystemFailed(f"{self.system.tower} {self.system.name} ended") from None


def _work(
    pipe: Connection, system: System, folder: Path, batches: Sequence[int], threads: int
) -> None:
    import psutil
    import torch

    from bench.offline.stopwatch import per_second

    torch.set_num_threads(threads)
    checkpoint, itself = Checkpoint.open(folder), psutil.Process()
    try:
        tower = _loaded(system, checkpoint, threads)
    except CheckpointError as error:
        pipe.send(str(error))
        return
    ready = {batch: tower.batch(batch) for batch in batches}
    vectors = [embed() for embed in ready.values()][-1]
    memory, began = itself.memory_full_info(), itself.create_time()
    pipe.send(Loaded(time.time() - began, memory.rss, memory.uss, vectors))
    while asked := pipe.recv():
        batch, seconds = asked
        pipe.send(batch * per_second(ready[batch], torch.device("cpu"), seconds))


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
