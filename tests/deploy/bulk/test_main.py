"""The whole command on a real Ray: the vectors of the service, its cache, and nothing lost."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.rig.redis_server import RedisServer
from bench.rig.server_process import ServerProcess
from deploy.bulk.__main__ import main
from deploy.bulk.source import ImageMissing, RowNull, RowTypeWrong, RowUnreadable
from litapi.errors import ImageEmpty, ImageFormatUnsupported, ImageUndecodable, TextEmpty
from tests.support.bulk_process import BulkProcess, TwoNodes
from tests.support.patience import awaited
from tests.support.picture import picture
from tests.support.table import rows_of, write_lines, write_parquet

Vectors = npt.NDArray[np.float32]
PATIENT: dict[str, Any] = {"SIGLIT_REDIS_BUDGET_MS": "1000"}


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    """Two nodes for the whole file; the test that loses one stands last."""
    with TwoNodes() as running:
        yield running


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """The Redis that bulk and service share."""
    with RedisServer() as running:
        yield running


@pytest.fixture(scope="module")
def service(redis: RedisServer) -> Iterator[ServerProcess]:
    """A server on that Redis."""
    with ServerProcess(REDIS_URL=redis.url, **PATIENT) as running:
        yield running


def _asked(server: ServerProcess, parts: list[Any], **headers: str) -> tuple[Vectors, list[str]]:
    """Vectors and cache states of some items."""
    body = {"input": parts, "encoding_format": "base64"}
    answer = httpx.post(f"{server.url}/v1/embeddings", json=body, headers=headers, timeout=120)
    assert answer.status_code == 200, answer.text
    rows = [base64.b64decode(row["embedding"]) for row in answer.json()["data"]]
    states = answer.headers["x-cache"].split(",")
    return np.array([np.frombuffer(row, "<f4") for row in rows]), states


def _image(data: bytes) -> dict[str, str]:
    return {"image": base64.b64encode(data).decode()}


def _agree(service: ServerProcess, parts: list[Any], vectors: list[Any]) -> None:
    """The service has them from Redis, equal to the bit, and computes the same."""
    kept, states = _asked(service, parts)
    assert set(states) == {"hit-l2"}
    assert np.array_equal(kept, np.array(vectors, np.float32))
    fresh, _ = _asked(service, parts, **{"cache-control": "no-cache"})
    assert np.einsum("ij,ij->i", kept, fresh).min() > 0.99999


def test_texts_are_the_services_and_in_its_cache(
    tmp_path: Path, nodes: TwoNodes, redis: RedisServer, service: ServerProcess
) -> None:
    """Bad rows are null with a code; what the service knew is not computed again."""
    texts = [f"A Red circle, number {n}" for n in range(40)]
    known = [f"asked before {n}" for n in range(10)]
    bad = [None, 7, "", b"{cut", {"path": "a text"}]
    values = [*texts[:20], *bad, *texts[20:], *known, "w " * 200]
    source = write_lines(tmp_path / "a.jsonl", values)
    first, _ = _asked(service, known)
    awaited(lambda: redis.command("DBSIZE") >= len(known))  # written behind the answer
    run = BulkProcess(
        *(source, tmp_path / "out", "--column", "caption", "--block-rows", 16),
        *("--redis-url", redis.url, "--address", nodes.address),
    ).result()
    rows = rows_of(tmp_path / "out")
    assert [row["row"] for row in rows] == list(range(len(values)))
    assert {row["file"] for row in rows} == {"a.jsonl"}
    refused = (RowNull, RowTypeWrong, TextEmpty, RowUnreadable, RowTypeWrong)
    assert [row["error"] for row in rows[20:25]] == [one.code for one in refused]
    assert [row["embedding"] for row in rows[20:25]] == [None] * 5
    good = [row for row in rows if row["error"] is None]
    assert (len(good), run["rows"], run["refused"]) == (51, 56, 5)
    assert [row["truncated"] for row in good] == [False] * 50 + [True]
    assert run["known"] == len(known)
    assert np.array_equal(first, np.array([row["embedding"] for row in good[40:50]], np.float32))
    _agree(service, texts, [row["embedding"] for row in good[:40]])


def test_images_are_the_services_and_in_its_cache(
    tmp_path: Path, nodes: TwoNodes, redis: RedisServer, service: ServerProcess
) -> None:
    """From the bytes and paths of one column, each refused alone where it is bad."""
    images = [picture(9000 + n, "JPEG" if n % 2 else "PNG") for n in range(12)]
    (tmp_path / "seen.png").write_bytes(picture(9100))
    values = [
        *({"bytes": data, "path": None} for data in images),
        {"bytes": None, "path": "seen.png"},
        {"bytes": None, "path": "missing.png"},
        {"bytes": picture(9200, "JPEG")[:900], "path": None},
        {"bytes": b"no image at all", "path": None},
        {"bytes": b"", "path": None},
        None,
    ]
    struct = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    source = write_parquet(tmp_path / "a.parquet", values, struct, group=7)
    run = BulkProcess(
        *(source, tmp_path / "out", "--block-rows", 5),
        *("--redis-url", redis.url, "--address", nodes.address),
    ).result()
    rows = rows_of(tmp_path / "out")
    bad = (ImageMissing, ImageUndecodable, ImageFormatUnsupported, ImageEmpty, RowNull)
    assert [row["error"] for row in rows] == [None] * 13 + [one.code for one in bad]
    assert (run["rows"], run["refused"]) == (18, 5)
    parts = [_image(data) for data in [*images, picture(9100)]]
    _agree(service, parts, [row["embedding"] for row in rows[:13]])


def test_a_killed_run_goes_on_without_doing_a_block_twice(tmp_path: Path, nodes: TwoNodes) -> None:
    """kill -9 of the command in mid-run, with its own Ray; a cluster does the rest."""
    many, size = 2400, 8
    source = write_lines(tmp_path / "a.jsonl", [f"resumed {n}" for n in range(many)])
    output = tmp_path / "out"
    killed = BulkProcess(source, output, "--block-rows", size)
    killed.await_blocks(output, 5)
    killed.kill()
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("rows-*.parquet")}
    assert 5 <= len(before) < many / size
    (output / ".rows-000000000000-000000000007.parquet.0.part").write_bytes(b"half a block")
    rest = ("--block-rows", size, "--address", nodes.address)
    run = BulkProcess(source, output, *rest).result()
    after = {path.name: path.stat().st_mtime_ns for path in output.glob("rows-*.parquet")}
    assert {name: after[name] for name in before} == before
    assert run["finished_before"] == len(before) * size
    assert run["rows"] == many - len(before) * size
    assert [row["row"] for row in rows_of(output)] == list(range(many))
    assert not list(output.glob(".*.part"))


def test_what_cannot_be_done_is_one_named_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, before any Ray is started."""
    source = str(write_lines(tmp_path / "a.jsonl", ["x"]))
    output = str(tmp_path / "out")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "none.parquet")
    both = [source, output]
    for arguments, sentence in [
        ([str(tmp_path / "b.jsonl"), output], "INPUT"),
        ([str(tmp_path / "none.parquet"), output], "no rows"),  # most likely the wrong file
        ([*both, "--column", "text"], "--column"),
        ([*both, "--threads", "many"], "--threads"),
        ([*both, "--precision", "int3"], "--precision"),
        ([*both, "--redis-url", "localhost"], "--redis-url"),
        ([*both, "--model", "/no/such/folder"], "no folder"),
        ([source, str(tmp_path)], "OUTPUT"),
        ([*both, "--address", "1.2.3.4:5", "--devices", "cuda:0"], "--devices"),
    ]:
        assert main(arguments) == 2
        said = capfd.readouterr().err
        assert sentence in said
        assert said.count("\n") == 1
    for flag, value in [("--workers", "0"), ("--block-rows", "x"), ("--kind", "sound")]:
        with pytest.raises(SystemExit) as ending:
            main([source, output, flag, value])
        assert ending.value.code == 2
        assert flag in capfd.readouterr().err


def test_a_lost_node_loses_no_row(tmp_path: Path, nodes: TwoNodes) -> None:
    """One of two nodes is killed in mid-run: the other does its blocks too."""
    many = 2400
    source = write_lines(tmp_path / "a.jsonl", [f"on two nodes {n}" for n in range(many)])
    output = tmp_path / "out"
    run = BulkProcess(source, output, "--block-rows", 8, "--address", nodes.address)
    run.await_blocks(output, 20)
    nodes.lose_one()
    assert len(list(output.glob("rows-*.parquet"))) < many / 8
    assert run.result()["rows"] == many
    rows = rows_of(output)
    assert [row["row"] for row in rows] == list(range(many))
    assert all(row["error"] is None for row in rows)
