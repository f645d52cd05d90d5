"""What bulk embedding loses on the way: its rate ÷ that of the bare tower on ready batches.

    python -m bench.micro.bulk                           # two towers of base size, random weights
    python -m bench.micro.bulk --size demo --rounds 1 --seconds 2

The bare tower is `bench.compare.baselines.bare --ready`: model input is made before, nothing is
read, looked up or written. The other side is the command itself: rows from a disk, decoded or
tokenized, looked up in a Redis that knows none of them, computed, kept there, and written as
Parquet. Both have as many torch threads, and batches of the same size. They take turns and are
compared within each round. Starting Ray and loading the tower is not in the rate; it stands beside.
Exit code 0: all targets met; 1: not.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import orjson
from tqdm import tqdm

from bench.compare.baselines.system import Ground
from bench.compare.contestant import Towers, Turn
from bench.compare.part import Part
from bench.compare.point import Point, throughput
from bench.load.item import MEDIA, Kind
from bench.load.workload import Workload
from bench.rig.command import concluded, measuring
from bench.rig.machine import ROOT, cores
from bench.rig.random_checkpoint import DEMO, SIZES, write_size
from bench.rig.redis_server import RedisServer
from bench.rig.rounds import Spread, Target, ratio
from litapi.checkpoint import Checkpoint
from litapi.model.plan import batch_items

LEAST = 0.85
BLOCKS = 8  # of a run: enough that reading and writing go on beside the tower
COLUMNS = ("tower", "rows", "bare /s", "least", "most", "bulk /s", "least", "most", "÷", "start s")


@dataclass(slots=True)
class Contest:
    """One tower: rows a second, bare and in bulk."""

    kind: Kind
    checkpoint: Path
    batch: int
    seconds: float
    redis: RedisServer
    rows: int = 0
    bare: list[float] = field(default_factory=list)
    bulk: list[float] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)

    def measure(self, number: int) -> None:
        """One round. The first tells how many rows are enough."""
        sides = [self._bare, self._bulk]
        for side in sides[::-1] if number % 2 else sides:
            side(number)

    def _bare(self, number: int) -> None:
        part = Part(self.kind, self.kind, bare=(self.batch,), bare_seconds=self.seconds)
        ground, found = Ground(self.checkpoint, cores()), list[Point]()
        Towers("bare", ready=True).take(Turn("bulk", part, number, 0, ground, found.append))
        self.bare.append(throughput(found[0]))
        self.rows = self.rows or max(4 * BLOCKS, round(self.bare[0] * self.seconds))

    def _bulk(self, number: int) -> None:
        """Fresh items and an empty Redis each time, so that no row is known."""
        self.redis.command("FLUSHALL")
        with tempfile.TemporaryDirectory() as folder:
            source, output = Path(folder, "in"), Path(folder, "out")
            source.mkdir()
            self._lay(source, number)
            command = [sys.executable, "-m", "deploy.bulk", source, output, "--devices", "cpu"]
            command += ["--model", self.checkpoint, "--redis-url", self.redis.url]
            command += ["--block-rows", str(max(1, self.rows // BLOCKS))]
            done = subprocess.run(
                [*map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False
            )
        if done.returncode:
            raise RuntimeError(f"deploy.bulk failed: {done.stderr}")
        report = orjson.loads(done.stdout.splitlines()[-1])
        if (report["rows"], report["refused"], report["known"]) != (self.rows, 0, 0):
            raise RuntimeError(f"the rows were not computed: {report}")
        self.bulk.append(report["rows_per_second"])
        self.starts.append(report["start_seconds"])

    def _lay(self, folder: Path, number: int) -> None:
        """The items of `bench.load` as a table or a folder."""
        items = Workload(self.kind, self.rows).job(number + 1, 0).items
        if self.kind == "text":
            lines = [orjson.dumps({"text": item.data.decode()}) for item in items]
            (folder / "texts.jsonl").write_bytes(b"\n".join(lines))
            return
        for place, item in enumerate(items):
            suffix = MEDIA[item.data[:2]].removeprefix("image/")
            (folder / f"{place:06d}.{suffix}").write_bytes(item.data)

    def target(self) -> Target:
        return Target(f"{self.kind}, bulk ÷ bare", ratio(self.bulk, self.bare), at_least=LEAST)

    def cells(self) -> list[str]:
        rates = [cell for side in (self.bare, self.bulk) for cell in Spread.of(side).cells()]
        start = f"{Spread.of(self.starts).median:.0f}"
        return [self.kind, str(self.rows), *rates, f"{self.target().ratio:.2f}", start]

    def fields(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "rows": self.rows,
            "batch": self.batch,
            "bare_rows_per_second": Spread.of(self.bare).fields(),
            "bulk_rows_per_second": Spread.of(self.bulk).fields(),
            "start_seconds": Spread.of(self.starts).fields(),
            "ratio": round(self.target().ratio, 3),
        }


def compare(size: str, kinds: Sequence[Kind], rounds: int, seconds: float) -> list[Contest]:
    """Measure on a checkpoint of that size, or on the demo's."""
    with tempfile.TemporaryDirectory() as folder, RedisServer() as redis:
        checkpoint = DEMO if size == "demo" else write_size(Path(folder, size), size)
        facts = Checkpoint.open(checkpoint)
        gflop: dict[Kind, float] = {"text": facts.text_gflop, "image": facts.image_gflop}
        contests = [  # of batches as the tower itself would choose them on a CPU
            Contest(kind, checkpoint, batch_items(kind, gflop[kind]), seconds, redis)
            for kind in kinds
        ]
        turns = [(one, number) for number in range(rounds) for one in contests]
        for contest, number in tqdm(turns, desc="bulk", unit="pair", leave=False, disable=None):
            contest.measure(number)
    return contests


def main(arguments: Sequence[str] | None = None) -> int:
    parser = measuring("bench.micro.bulk", __doc__, 3, 6.0, "of each side in a round")
    parser.add_argument("--size", choices=("demo", *SIZES), default="base-patch16-224")
    parser.add_argument("--kinds", nargs="+", choices=get_args(Kind), default=get_args(Kind))
    options = parser.parse_args(arguments)
    contests = compare(options.size, options.kinds, options.rounds, options.seconds)
    towers = [contest.fields() for contest in contests]
    fields = {"size": options.size, "threads": cores(), "towers": towers}
    rows = [COLUMNS, *(contest.cells() for contest in contests)]
    targets = [contest.target() for contest in contests]
    return concluded("bulk", options, rows, targets, fields, measured_on="cpu")


if __name__ == "__main__":
    sys.exit(main())
