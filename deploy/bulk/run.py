"""The whole run: blocks that are not finished → Ray Data → their files.

Ray Data carries the names of blocks and what became of them, no row and no vector: a worker reads
and writes by itself, so a block that a lost node held is simply done again elsewhere, and one done
twice is the same file. A row of the dataset is a block.
"""

from __future__ import annotations

import logging
import pickle
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from tqdm import tqdm

from deploy.bulk.cluster import Room
from deploy.bulk.source import Block, BulkError
from deploy.bulk.task import Report, Task
from deploy.bulk.worker import AT_ONCE, Worker


@dataclass(slots=True)
class Tally:
    """What became of the rows of this run."""

    finished_before: int
    rows: int = 0
    refused: int = 0
    known: int = 0
    began: float = float("inf")
    ended: float = 0.0
    started: float = field(default_factory=time.time)

    def add(self, report: Report) -> None:
        """Take in a block."""
        self.rows += report.rows
        self.refused += report.refused
        self.known += report.known
        self.began = min(self.began, report.began)
        self.ended = max(self.ended, report.ended)

    def fields(self) -> dict[str, Any]:
        """As JSON holds it: seconds from the first block's begin to the last one's end, and those
        before, in which Ray and the workers start."""
        seconds = max(0.0, self.ended - self.began)
        return {
            "rows": self.rows,
            "refused": self.refused,
            "known": self.known,
            "finished_before": self.finished_before,
            "start_seconds": round(max(0.0, self.began - self.started), 3) if self.rows else 0.0,
            "seconds": round(seconds, 3),
            "rows_per_second": round(self.rows / seconds, 3) if seconds else 0.0,
        }


def run(task: Task, blocks: Sequence[Block], room: Room, tally: Tally) -> None:
    """Do all of `blocks`. Raises BulkError where a worker refuses to compute."""
    todo = sum(block.rows for block in blocks)
    bar = tqdm(
        total=tally.finished_before + todo,
        initial=tally.finished_before,
        desc="embedding",
        unit="row",
        file=sys.stderr,
    )
    with bar:
        for report in _reports(task, blocks, room):
            if report.refusal:
                raise BulkError(report.refusal)
            tally.add(report)
            bar.update(report.rows)


def _reports(task: Task, blocks: Sequence[Block], room: Room) -> Iterator[Report]:
    _quiet()
    rows = [{"block": pickle.dumps(block)} for block in blocks]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Worker,
        fn_constructor_args=(task,),
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            size=min(room.workers, len(rows)),
            max_tasks_in_flight_per_actor=AT_ONCE,
            max_concurrent_calls_per_actor=AT_ONCE,
            enable_true_multi_threading=True,
        ),
        num_cpus=room.cpus,
        num_gpus=room.gpus,
    )
    for row in dataset.iter_rows():
        yield pickle.loads(row["report"])


def _quiet() -> None:
    """One bar is enough, and Ray's are about its own blocks."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
