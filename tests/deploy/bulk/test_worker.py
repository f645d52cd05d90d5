"""A worker without Ray around it: when it computes, and when it says why not."""

import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.rig.redis_server import RedisServer
from cache import Corrupt, decode
from deploy.bulk.output import MOST_TRIES, begin, end, fingerprint_of
from deploy.bulk.source import discover
from deploy.bulk.task import Report, Task, open_checkpoint
from deploy.bulk.worker import Worker
from litapi.checkpoint import DEMO, SPACE_KEY, CheckpointError
from litapi.messages import Kind
from litapi.model.encoder import TextEncoder
from litapi.model.served import text_encoder
from litapi.model.tokens import Tokenizer
from litapi.serving import Service, seal
from litapi.settings import Settings
from tests.support.patience import awaited
from tests.support.picture import picture
from tests.support.table import rows_of, write_lines


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """Three texts to embed."""
    return _task(write_lines(tmp_path / "a.jsonl", ["a", "b", "a"]), tmp_path / "out")


def _task(source: Path, output: Path) -> Task:
    output.mkdir()
    settings = Settings(threads=1, precision="float32")
    found = discover(source, None, None)
    return Task(settings, open_checkpoint(settings), found, output, "", "cpu")


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
    precision: dict[Kind, str] = {"text": "float32"}
    served: dict[Kind, str] = {"text": text_encoder(task.settings, task.checkpoint).arithmetic}
    service = Service(task.settings, task.checkpoint, precision=precision, arithmetic=served)
    assert fingerprint_of(path) == service.fingerprints()["text"].hex
    assert pq.read_schema(path).metadata[SPACE_KEY].decode() == service.info()["model"]["space"]
    first, second, third = (row["embedding"] for row in rows_of(task.output))
    assert first == third != second
    assert sum(number**2 for number in first) == pytest.approx(1, abs=1e-5)


def test_what_bulk_writes_for_a_tenant_is_sealed_as_the_server_seals_it(task: Task) -> None:
    """With a tenant's secret values are authenticated; a server takes no others."""
    with RedisServer(unix=True) as server:
        ours = {"redis_url": server.url, "cache_tenant": "secret"}
        sealed = replace(task, settings=task.settings.model_copy(update=ours))
        _report(Worker(sealed), sealed)
        client: Any = server.client()
        awaited(lambda: client.dbsize() >= 2)
        keys = client.keys("sl2:*")
        values = [client.get(key) for key in keys]
    dim = task.checkpoint.dim
    assert len(keys) == 2
    for key, value in zip(keys, values, strict=True):
        assert decode(key, value, dim, seal("secret")).tokens > 0
        with pytest.raises(Corrupt):
            decode(key, value, dim)


def test_other_arithmetic_than_that_of_the_finished_blocks_is_refused(task: Task) -> None:
    """A run that was begun elsewhere is not mixed with this worker's numbers."""
    report = _report(Worker(replace(task, fingerprint="00" * 32)), task)
    assert "other arithmetic" in report.refusal
    assert list(task.output.iterdir()) == []


def test_a_block_that_ends_every_worker_is_given_up(task: Task) -> None:
    """It was begun so often and never finished: the report names it."""
    worker = Worker(task)
    block = next(task.source.blocks(3))
    assert all(begin(task.output, block) for _ in range(MOST_TRIES))
    assert block.name in _report(worker, task).refusal
    end(task.output, block)
    assert _report(worker, task).rows == 3


def test_a_worker_that_embeds_nothing_finishes_nothing(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows would be taken for done, and the next run would not compute them."""
    worker = Worker(task)

    def broken(*_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(TextEncoder, "submit", broken)
        assert "embeds nothing" in _report(worker, task).refusal
        assert list(task.output.glob("rows-*")) == []
    assert _report(worker, task).rows == 3


def test_a_row_that_fails_alone_is_written_as_refused(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One poisoned row, tried twice, does not keep the others from being done."""
    worker, submit = Worker(task), TextEncoder.submit
    poisoned = Tokenizer.load(task.checkpoint).encode(["b"]).ids[0]

    def picky(self: TextEncoder, rows: Any) -> Any:
        if any((row == poisoned).all() for row in rows):
            raise RuntimeError
        return submit(self, rows)

    monkeypatch.setattr(TextEncoder, "submit", picky)
    report = _report(worker, task)
    assert (report.rows, report.refused, report.refusal) == (3, 1, "")
    assert [row["error"] for row in rows_of(task.output)] == [None, "item_internal", None]


def test_a_file_may_have_any_name(tmp_path: Path) -> None:
    """One that is not UTF-8 is written with marks in place of what cannot be said."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(picture(1))
    task = _task(folder, tmp_path / "out")
    report = _report(Worker(task), task, 1)
    assert (report.rows, report.refused) == (1, 0)
    assert [row["file"] for row in rows_of(task.output)] == ["caf?.png"]


def test_other_files_on_this_node_compute_nothing(tmp_path: Path, task: Task) -> None:
    """Vectors of other weights would be kept under the fingerprint of those that began."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(DEMO, folder)
    settings = Settings(model=str(folder), threads=1, precision="float32")
    begun = replace(task, settings=settings, checkpoint=open_checkpoint(settings))
    assert begun.here() is not None
    tokenizer = folder / "preprocessor_config.json"
    found = orjson.loads(tokenizer.read_bytes())
    tokenizer.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    assert begun.here().checkpoint.folder == folder  # other bytes that say the same
    tokenizer.write_bytes(orjson.dumps({**found, "image_mean": [0.4, 0.5, 0.5]}))
    with pytest.raises(CheckpointError, match="other files"):
        begun.here()


def test_a_checkpoint_that_would_be_served_wrong_computes_nothing(task: Task) -> None:
    """The sentence of the check comes back in the report."""
    report = _report(Worker(replace(task, device="cuda:63")), task)
    assert "cuda:63" in report.refusal
