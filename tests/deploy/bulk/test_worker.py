"""A worker without Ray around it: when it computes, and when it says why not."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from deploy.bulk.attempt import MOST, Attempts
from deploy.bulk.discovery import discover
from deploy.bulk.task import Report, Task, open_checkpoint
from deploy.bulk.vector_file import fingerprint_of
from deploy.bulk.worker import Worker
from litapi.service import Service
from litapi.settings import Settings
from tests.deploy.bulk.table import rows_of, write_lines


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """Three texts to embed."""
    source = discover(write_lines(tmp_path / "a.jsonl", ["a", "b", "a"]), None, None)
    settings = Settings(threads=1, precision="float32")
    output = tmp_path / "out"
    output.mkdir()
    return Task(settings, open_checkpoint(settings), source, output, "", "cpu")


def _report(worker: Worker, task: Task, rows: int = 3) -> Report:
    block = next(task.source.blocks(rows))
    answer = worker(pa.table({"block": pa.array([pickle.dumps(block)])}))
    report: Report = pickle.loads(answer["report"][0])
    return report


def test_a_block_is_finished_with_nothing_left_beside_it(task: Task) -> None:
    """Its file holds every row, and the fingerprint that the service's cache would use."""
    report = _report(Worker(task), task)
    assert (report.rows, report.refused, report.refusal) == (3, 0, "")
    assert report.began < report.ended
    (path,) = task.output.iterdir()
    service = Service(
        task.settings,
        task.checkpoint,
        precision={"text": "float32"},
        arithmetic={"text": "float32"},
    )
    assert fingerprint_of(path) == service.fingerprints()["text"].hex
    first, second, third = (row["embedding"] for row in rows_of(task.output))
    assert first == third != second
    assert sum(number**2 for number in first) == pytest.approx(1, abs=1e-5)


def test_other_arithmetic_than_that_of_the_finished_blocks_is_refused(task: Task) -> None:
    """A run that was begun elsewhere is not mixed with this worker's numbers."""
    report = _report(Worker(replace(task, fingerprint="00" * 32)), task)
    assert "other arithmetic" in report.refusal
    assert list(task.output.iterdir()) == []


def test_a_block_that_ends_every_worker_is_given_up(task: Task) -> None:
    """It was begun so often and never finished: the report names it."""
    worker, attempts = Worker(task), Attempts(task.output)
    block = next(task.source.blocks(3))
    assert all(attempts.begin(block) for _ in range(MOST))
    assert block.name in _report(worker, task).refusal
    attempts.end(block)
    assert _report(worker, task).rows == 3


def test_a_checkpoint_that_would_be_served_wrong_computes_nothing(task: Task) -> None:
    """The sentence of the check comes back in the report."""
    report = _report(Worker(replace(task, device="cuda:63")), task)
    assert "cuda:63" in report.refusal
