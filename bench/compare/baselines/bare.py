"""The ceiling: one tower called in this process on ready batches, no HTTP, no queue.

    python -m bench.compare.baselines.bare FOLDER --kind text --batches 1,8,32 --out bare.jsonl

The items are those that `bench.load` sends, in the same order. Each batch is decoded on all cores
(images) or tokenized, then computed with as many torch threads. With `--ready` the model input of
all batches is made beforehand, so that only the forward passes are timed. Writes a recording like
that of `bench.load`, a level for each size of batch, a sample for each batch.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.load.level import Level
from bench.load.recording import Recorder, Sample
from bench.load.workload import Job, Kind, Workload
from bench.rig.command import described, listed
from bench.rig.machine import cores
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


def record(options: argparse.Namespace) -> None:
    threads = options.threads or cores()
    bare = Bare(options.kind, options.folder, threads, options.precision, options.device)
    with options.out.open("wb") as file:
        recorder = Recorder(file)
        recorder.run({"kind": options.kind, "threads": threads, "ready": options.ready})
        for number, batch in enumerate(options.batches, 1):
            level = Level(number, concurrency=1, duration=options.seconds)
            workload = Workload(options.kind, batch, options.seed)
            recorder.level(level)
            samples = bare.run(level, workload, options.ready)
            recorder.samples(b"".join(sample.line() for sample in samples))
        recorder.end(partial=False)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = described("bench.compare.baselines.bare", __doc__)
    parser.add_argument("folder", type=Path, help="the checkpoint")
    parser.add_argument("--kind", choices=("text", "image"), default="text")
    parser.add_argument("--batches", type=listed(int), default=[1, 8, 32], metavar="N[,N…]")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each size of batch")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: all cores")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--device", default="cpu", help="or a GPU such as cuda:0")
    parser.add_argument("--seed", type=int, default=0, help="settles every item")
    parser.add_argument("--ready", action="store_true", help="time the forward passes alone")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl")
    record(parser.parse_args(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
