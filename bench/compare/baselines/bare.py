"""The ceiling: one tower called in this process on ready batches, no HTTP, no queue.

The items are those that `bench.load` sends, in the same order. Each batch is decoded on all cores
(images) or tokenized, then computed with as many torch threads. With `ready` the model input of all
batches is made beforehand, so that only the forward passes are timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.compare.baselines.system import Ground
from bench.load.level import Level
from bench.load.recording import Sample, Stage
from bench.load.summary import Summary
from bench.load.workload import Job, Kind, Workload
from litapi.checkpoint import Checkpoint
from litapi.model.encoder import ImageEncoder, TextEncoder, Vectors
from litapi.model.picture import PictureReader
from litapi.model.pixels import PixelMaker
from litapi.model.tokens import Tokenizer

READY = 8  # batches made beforehand; they are computed in turn


class Bare:
    """One tower: `prepare` makes the model input of a job, `embed` its vectors."""

    prepare: Callable[[Job], Any]
    embed: Callable[[Any], Vectors]

    def __init__(
        self,
        kind: Kind,
        folder: Path,
        threads: int,
        precision: str = "float32",
        device: str = "cpu",
    ) -> None:
        checkpoint = Checkpoint.open(folder)
        if kind == "text":
            self._tokenizer = Tokenizer.load(checkpoint)
            self.prepare = self._tokens
            self.embed = TextEncoder.load(checkpoint, device, precision, threads).embed
        else:
            self._reader, self._maker = PictureReader(), PixelMaker(checkpoint)
            self._pool = ThreadPoolExecutor(threads)
            self.prepare = self._pixels
            self.embed = ImageEncoder.load(checkpoint, device, precision, threads).embed

    def _tokens(self, job: Job) -> Any:
        return self._tokenizer.encode([item.data.decode() for item in job.items]).ids

    def _pixels(self, job: Job) -> list[Any]:
        run = self._pool.map if len(job.items) > 1 else map
        return list(run(self._picture, [item.data for item in job.items]))

    def _picture(self, data: bytes) -> Any:
        return self._maker.make(self._reader.read(data))

    def run(self, level: Level, workload: Workload, ready: bool) -> list[Sample]:
        """Batch after batch until the level's time is up, but at least two."""
        self.embed(self.prepare(workload.job(0, level.number)))  # what is made once, is made
        made = [self.prepare(workload.job(level.number, n)) for n in range(READY)] if ready else []
        samples: list[Sample] = []
        origin = time.monotonic()
        while len(samples) < 2 or time.monotonic() - origin < level.duration:
            number = len(samples)
            job = None if made else workload.job(level.number, number)
            began = time.monotonic() - origin
            self.embed(made[number % READY] if job is None else self.prepare(job))
            done = time.monotonic() - origin
            sent = (level.number, number, workload.target, workload.batch)
            samples.append(Sample(*sent, began, began, done, done, status=200))
        return samples


def summaries(
    kind: Kind,
    ground: Ground,
    precision: str,
    batches: Sequence[int],
    seconds: float,
    seed: int,
    ready: bool,
) -> list[Summary]:
    """One for each size of batch, which is timed for so many seconds."""
    bare, found = Bare(kind, ground.checkpoint, ground.threads(), precision, ground.device), []
    for number, batch in enumerate(batches, 1):
        level = Level(number, concurrency=1, duration=seconds)
        samples = bare.run(level, Workload(kind, batch, seed), ready)
        found.append(replace(Summary.of(Stage(level, samples)), level=f"batch {batch}"))
    return found
