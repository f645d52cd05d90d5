"""One tower on one device, as a Ray actor: a block in, its Parquet file out.

    read ─► engine: key ─► look up in Redis ─► decode ∥ predict ─► keep ─► write

Two blocks are in it at a time, so that the model computes one while the other is read, looked up or
written. Vectors are in Redis before their block is finished, under the keys and in the form of the
service. A worker that must not compute says so in its reports, for an exception out of an actor
would be retried. It knows nothing of Ray.
"""

from __future__ import annotations

import pickle
import time
from typing import Any

from cache import Entry
from deploy.bulk.intake import Intake
from deploy.bulk.output import Row, VectorFile, begin, end
from deploy.bulk.source import Block
from deploy.bulk.task import Report, Task
from litapi.checkpoint import CheckpointError
from litapi.engine import KNOWN, Engine
from litapi.errors import ItemError, ItemInternal
from litapi.logs import configure
from litapi.messages import Item

AT_ONCE = 2  # blocks in a worker


class Worker:
    """Called by Ray Data with batches of one row, a packed `Block`; answers a packed `Report`."""

    def __init__(self, task: Task) -> None:
        self._refusal = ""
        try:
            self._open(task.here())
        except CheckpointError as error:
            self._refusal = str(error)

    def _open(self, task: Task) -> None:
        self._task, settings, kind = task, task.settings, task.source.kind
        configure(settings)
        self._engine = Engine(settings, task.checkpoint, task.device)
        facts, fingerprint = self._engine.load(kind), self._engine.fingerprint(kind)
        if task.fingerprint not in ("", fingerprint.hex):
            raise CheckpointError(
                "the finished blocks were computed in other arithmetic than this worker's "
                f"({facts['arithmetic']} on {facts['device']})"
            )
        self._intake = Intake(settings, kind)
        checkpoint, name = task.checkpoint, settings.served_name or task.checkpoint.name
        self._file = VectorFile(
            task.output, checkpoint.dim, name, fingerprint.hex, checkpoint.space
        )

    def __call__(self, batch: Any) -> dict[str, list[bytes]]:
        """From and to tables of one column and one row."""
        block: Block = pickle.loads(batch.column("block")[0].as_py())
        return {"report": [pickle.dumps(self._report(block))]}

    def _report(self, block: Block) -> Report:
        if self._refusal:
            return Report(refusal=self._refusal)
        if not begin(self._task.output, block):
            return Report(refusal=f"{block.name}: a row of it seems to end every worker it meets")
        report = self._embed(block)
        end(self._task.output, block)
        return report

    def _embed(self, block: Block) -> Report:
        began = time.time()
        items, kind = self._items(block), self._task.source.kind
        found = self._engine.embed(kind, items)
        rows = [*map(_row, found.values)]
        if any(map(_failed, rows)):  # not by a fault of the items: once more
            found = self._engine.embed(kind, items)
            rows = [*map(_row, found.values)]
        del items  # the bytes of images: the next block's are on their way
        if len(rows) > 1 and all(map(_failed, rows)):
            return Report(refusal=f"{block.name}: this worker embeds nothing; its log says why")
        self._engine.flush()
        self._file.write(block, rows)
        return Report(
            rows=len(rows),
            refused=sum(isinstance(row, ItemError) for row in rows),
            known=sum(state in KNOWN for state in found.states),
            began=began,
            ended=time.time(),
        )

    def _items(self, block: Block) -> list[Item | ItemError]:
        source = self._task.source
        folder = source.folder(block)
        return [self._intake.item(value, folder) for value in source.values(block)]


def _failed(row: Row) -> bool:
    return isinstance(row, ItemInternal)


def _row(value: Entry | Exception | None) -> Row:
    """What is not an item's own fault is in the worker's log, and may go well another time."""
    return value if isinstance(value, Entry | ItemError) else ItemInternal()
