"""What bulk embedding and an engine lose on the way: their rates ÷ that of the bare tower.

    python -m bench.micro.bulk                           # two towers of base size, random weights
    python -m bench.micro.bulk --ways engine --rounds 7  # the engine alone: without Ray
    python -m bench.micro.bulk --size demo --rounds 1 --seconds 2

The bare tower is that of `bench.compare`, made ready: model input is made before, nothing is
read, looked up or written. "bulk" is the command itself: rows from a disk, decoded or tokenized,
looked up in a Redis that knows none of them, computed, kept there, and written as Parquet. "engine"
is `litapi.Engine` in this process, given the same rows as texts or encoded pictures, without a
cache. All have the same precision, as many threads, and batches of the same size. They take turns
and are compared within each round. Starting Ray and loading the tower is not in the rate; the
former stands beside. Exit code 0: all targets met; 1: not.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import orjson

from bench.compare.baselines.system import Ground
from bench.compare.contestant import Turn, towers
from bench.compare.point import Point, throughput
from bench.compare.scenario import READY, Part
from bench.load.summary import NOTHING
from bench.load.workload import MEDIA, Item, Kind, Workload
from bench.rig.child import ROOT
from bench.rig.command import Figures, Target, concluded, in_turn, measuring
from bench.rig.machine import cores
from bench.rig.random_checkpoint import DEMO, SIZES, write_size
from bench.rig.redis_server import RedisServer
from litapi import Engine
from litapi.model.plan import batch_gflop, batch_items
from litapi.model.precision import choose_precision

LEAST = {"bulk": 0.85, "engine": 0.97}  # ÷ bare
BLOCKS = 8  # of a run: enough that reading and writing go on beside the tower
RATE, START = "{}_rows_per_second", "start_seconds"
COLUMNS = ("tower", "way", "rows", "rows/s", "least", "most", "÷ bare", "start s")


@dataclass(slots=True)
class Contest:
    """One tower: rows a second, bare and in other ways."""

    kind: Kind
    engine: Engine
    ways: Sequence[str]
    seconds: float
    redis: RedisServer
    rows: int = 0
    figures: Figures = field(default_factory=lambda: Figures(list))

    def measure(self, number: int) -> None:
        """One round. The first tells how many rows are enough."""
        sides = {"bare": self._bare, "bulk": self._bulk, "engine": self._engine}
        order = ["bare", *self.ways]
        for way in reversed(order) if number % 2 else order:
            self.figures[RATE.format(way)].append(sides[way](number))

    @property
    def batch(self) -> int:
        """As the tower itself would choose on a CPU."""
        gflop = self.engine.checkpoint.gflop(self.kind)
        return batch_items(gflop, batch_gflop(self.kind, self.precision))

    @property
    def precision(self) -> str:
        return self.engine.settings.precision

    def _bare(self, number: int) -> float:
        how: Any = {"bare": (self.batch,), "bare_seconds": self.seconds}
        part = Part(self.kind, self.kind, precision=self.precision, **how)
        ground, found = Ground(self.engine.checkpoint.folder, cores()), list[Point]()
        towers(READY).take(Turn("bulk", part, number, 0, ground, found.append, print))
        rate = throughput(found[0])
        self.rows = self.rows or max(4 * BLOCKS, round(rate * self.seconds))
        return rate

    def _engine(self, number: int) -> float:
        """Items that it has not seen, all in one call."""
        items: list[Any] = [item.data for item in self._items(number)]
        if self.kind == "text":
            items = [item.decode() for item in items]
        embed = self.engine.texts if self.kind == "text" else self.engine.images
        embed(items[:1])  # the tower is loaded, and what is made once, is made
        began = time.perf_counter()
        embed(items)
        return len(items) / (time.perf_counter() - began)

    def _items(self, number: int) -> Sequence[Item]:
        return Workload(self.kind, self.rows).job(number + 1, 0).items

    def _bulk(self, number: int) -> float:
        """Fresh items and an empty Redis each time, so that no row is known."""
        self.redis.command("FLUSHALL")
        with tempfile.TemporaryDirectory() as folder:
            source, output = Path(folder, "in"), Path(folder, "out")
            source.mkdir()
            self._lay(source, number)
            command = [sys.executable, "-m", "deploy.bulk", source, output, "--devices", "cpu"]
            command += ["--model", self.engine.checkpoint.folder, "--redis-url", self.redis.url]
            command += ["--precision", self.precision, "--threads", cores()]
            command += ["--block-rows", max(1, self.rows // BLOCKS)]
            done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"deploy.bulk failed: {done.stderr}")
        report = orjson.loads(done.stdout.splitlines()[-1])
        if (report["rows"], report["refused"], report["known"]) != (self.rows, 0, 0):
            raise RuntimeError(f"the rows were not computed: {report}")
        self.figures[START].append(report["start_seconds"])
        return float(report["rows_per_second"])

    def _lay(self, folder: Path, number: int) -> None:
        """The items of `bench.load` as a table or a folder."""
        items = self._items(number)
        if self.kind == "text":
            lines = [orjson.dumps({"text": item.data.decode()}) for item in items]
            (folder / "texts.jsonl").write_bytes(b"\n".join(lines))
            return
        for place, item in enumerate(items):
            suffix = MEDIA[item.data[:2]].removeprefix("image/")
            (folder / f"{place:06d}.{suffix}").write_bytes(item.data)

    def ratio(self, way: str) -> float:
        return self.figures.ratio(RATE.format(way), RATE.format("bare"))

    def cells(self, way: str) -> list[str]:
        start = self.figures.cells(START, ".0f")[0] if way == "bulk" else NOTHING
        rates = self.figures.cells(RATE.format(way))
        return [self.kind, way, str(self.rows), *rates, f"{self.ratio(way):.3f}", start]

    def fields(self) -> dict[str, Any]:
        ratios = {way: round(self.ratio(way), 3) for way in self.ways}
        known = {"kind": self.kind, "rows": self.rows, "batch": self.batch}
        return {**known, **self.figures.fields(), "ratios": ratios}


def compare(options: argparse.Namespace) -> list[Contest]:
    """Measure on a checkpoint of that size, or on the demo's."""
    with tempfile.TemporaryDirectory() as folder, RedisServer() as redis:
        size = options.size
        checkpoint = DEMO if size == "demo" else write_size(Path(folder, size), size)
        precision = choose_precision(options.precision, "cpu")
        flags = {"precision": precision, "threads": cores(), "devices": "cpu", "cache": "off"}
        with Engine.open(str(checkpoint), **flags) as engine:
            how = (engine, options.ways, options.seconds, redis)
            contests = [Contest(kind, *how) for kind in options.kinds]
            for number, contest in in_turn(contests, options.rounds, "bulk"):
                contest.measure(number)
    return contests


def main(arguments: Sequence[str] | None = None) -> int:
    parser = measuring("bench.micro.bulk", __doc__, 3, 6.0, "of each side in a round")
    parser.add_argument("--size", choices=("demo", *SIZES), default="base-patch16-224")
    parser.add_argument("--kinds", nargs="+", choices=get_args(Kind), default=get_args(Kind))
    parser.add_argument("--ways", nargs="+", choices=LEAST, default=tuple(LEAST))
    parser.add_argument("--precision", default="auto", help="of all sides")
    options = parser.parse_args(arguments)
    contests = compare(options)
    towers = [contest.fields() for contest in contests]
    fields = {"size": options.size, "threads": cores(), "towers": towers}
    ways = ("bare", *options.ways)
    rows = [COLUMNS, *(contest.cells(way) for contest in contests for way in ways)]
    targets = [
        Target(f"{contest.kind}, {way} ÷ bare", contest.ratio(way), at_least=LEAST[way])
        for contest in contests
        for way in options.ways
    ]
    return concluded("bulk", options, rows, targets, fields, measured_on="cpu")


if __name__ == "__main__":
    sys.exit(main())
