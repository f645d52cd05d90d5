"""`python -m litapi embed`: by a server and in this process, into each kind of file."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bench.rig.port import free_port
from bench.rig.server_process import ServerProcess
from litapi.__main__ import main
from litapi.checkpoint import DEMO, SPACE_KEY, Checkpoint
from tests.support.command import litapi
from tests.support.picture import picture


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Two texts, a folder of a picture and a damaged one, and a text again."""
    (tmp_path / "a.txt").write_text("first\n\nsecond\n")
    (tmp_path / "images" / "deep").mkdir(parents=True)
    (tmp_path / "images" / "deep" / "one.png").write_bytes(picture(5100))
    (tmp_path / "images" / "zero.jpg").write_bytes(b"none")
    (tmp_path / "b.txt").write_text("third")
    return [str(tmp_path / name) for name in ("a.txt", "images", "b.txt")]


def test_items_are_written_in_the_order_of_the_arguments(
    server: ServerProcess, files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same vectors as JSON lines, matrix and Parquet; a refused item is named, exit code 1."""
    assert main(["embed", *files, "--url", server.url]) == 1
    said = capsys.readouterr()
    rows = [json.loads(line) for line in said.out.splitlines()]
    names = [Path(row["item"]).name for row in rows]
    assert said.err.strip().endswith("1 refused")
    assert names == ["first", "second", "one.png", "zero.jpg", "third"]
    assert rows[3]["error"] == "image_format_unsupported"
    for suffix in ("npy", "parquet"):
        main(["embed", *files, "--url", server.url, "--out", str(tmp_path / f"o.{suffix}")])
        assert capsys.readouterr().out == ""
    matrix, table = np.load(tmp_path / "o.npy"), pq.read_table(tmp_path / "o.parquet")
    assert table.schema.metadata[SPACE_KEY].decode() == Checkpoint.open(DEMO).space
    assert np.isnan(matrix[3]).all()
    for row, numbers, written in zip(rows, matrix, table.to_pylist(), strict=True):
        assert written["error"] == row.get("error")
        if "error" in row:
            assert written["embedding"] is None
        else:
            assert np.array_equal(numbers, np.array(row["embedding"], np.float32))
            assert np.array_equal(numbers, np.array(written["embedding"], np.float32))
    assert sorted(path.name for path in tmp_path.glob("*o.*")) == ["o.npy", "o.parquet"]


def test_without_a_server_it_computes_here(server: ServerProcess) -> None:
    """The vectors of a server with the same options."""
    here = litapi("embed", "-", "--precision", "float32", said="from a pipe\n")
    there = litapi("embed", "-", "--url", server.url, said="from a pipe\n")
    assert here.returncode == 0, here.stderr
    assert here.stdout == there.stdout


def test_what_cannot_be_done_is_one_line(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No server, no file, no such form, no such precision; and nothing is left behind."""
    out = str(tmp_path / "o.npy")
    wrong = {
        "no server": [*files, "--url", f"http://127.0.0.1:{free_port()}", "--out", out],
        "does not exist": [str(tmp_path / "gone.txt")],
        "only .jsonl": [*files, "--out", "o.csv"],
        "precision": [*files, "--precision", "float3"],
    }
    for sentence, arguments in wrong.items():
        assert main(["embed", *arguments]) == 2
        said = capsys.readouterr().err
        assert sentence in said
        assert said.count("\n") == 1
    assert not [*tmp_path.glob("*o.npy*")]
