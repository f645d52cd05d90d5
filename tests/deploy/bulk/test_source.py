"""What stands in an input, cut into blocks: found out alone, and never guessed."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deploy.bulk.source import BulkError, RowUnreadable, Source, discover
from litapi.messages import Kind
from tests.support.picture import picture
from tests.support.table import write_lines, write_parquet

HUGGING = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def _all(source: Source, rows: int) -> list[object]:
    return [value for block in source.blocks(rows) for value in source.values(block)]


@pytest.mark.parametrize("rows", [1, 3, 7, 100, 1000])
def test_blocks_are_the_whole_input_once_and_in_order(tmp_path: Path, rows: int) -> None:
    """Whatever their size, over row groups and files."""
    values = [f"text {n}" for n in range(23)]
    write_parquet(tmp_path / "a.parquet", values[:10], pa.string(), group=4)
    write_parquet(tmp_path / "b.parquet", values[10:], pa.large_string(), group=5)
    source = discover(tmp_path, None, None)
    assert (source.kind, source.column) == ("text", "item")
    assert _all(source, rows) == values
    blocks = list(source.blocks(rows))
    assert [b.first for b in blocks] == [
        sum(b.rows for b in blocks[:n]) for n in range(len(blocks))
    ]
    assert sorted(block.name for block in blocks) == [block.name for block in blocks]


@pytest.mark.parametrize("rows", [1, 2, 5, 100])
def test_lines_are_read_from_the_middle_of_a_file(tmp_path: Path, rows: int) -> None:
    """By their bytes: long characters and empty lines move nothing."""
    values = ["short", "é" * 50, "", "日本語", "the last"]
    path = write_lines(tmp_path / "a.jsonl", values)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\n\n \n"))
    assert _all(discover(path, None, None), rows) == values


def test_a_folder_of_images_is_its_files_by_name(tmp_path: Path) -> None:
    """Those in folders too, and nothing that is no image."""
    (tmp_path / "deep").mkdir()
    for name in ("b.png", "deep/a.JPG", "notes.txt"):
        (tmp_path / name).write_bytes(picture(1))
    source = discover(tmp_path, None, None)
    assert source.kind == "image"
    assert _all(source, 1) == ["b.png", "deep/a.JPG"]


@pytest.mark.parametrize(
    ("values", "kind", "found"),
    [
        (["a cat", None, "photo.png"], pa.string(), "text"),
        (["photo.png", None, "b.JPEG"], pa.string(), "image"),
        (["data:image/png;base64,AA=="], pa.string(), "image"),
        ([b"bytes"], pa.binary(), "image"),
        ([{"bytes": b"x", "path": None}], HUGGING, "image"),
    ],
)  # fmt: skip
def test_the_kind_is_found_out(
    tmp_path: Path, values: list[object], kind: pa.DataType, found: str
) -> None:
    """From the column's type, and for strings from what they look like."""
    assert discover(write_parquet(tmp_path / "a.pq", values, kind), None, None).kind == found


def test_the_kind_is_found_out_from_the_first_values_that_are_there(tmp_path: Path) -> None:
    """Spark's first file is often empty, and a column may begin with many nulls."""
    write_parquet(tmp_path / "part-0.parquet", [], pa.string())
    write_parquet(tmp_path / "part-1.parquet", [None] * 300, pa.string())
    with pytest.raises(BulkError, match="--kind"):
        discover(tmp_path, None, None)
    assert discover(tmp_path, None, "image").kind == "image"
    write_parquet(tmp_path / "part-2.parquet", ["a.png"], pa.string())
    assert discover(tmp_path, None, None).kind == "image"
    lines = tmp_path / "lines"
    lines.mkdir()
    (lines / "a.jsonl").write_bytes(b"")
    write_lines(lines / "b.jsonl", ["a.png"])
    assert discover(lines, None, None).kind == "image"


def test_a_text_that_is_not_utf_8_is_a_row_of_its_own(tmp_path: Path) -> None:
    """As a damaged line is; Parquet does not look at the bytes. The other rows are whole."""
    lines = write_lines(tmp_path / "a.jsonl", ["a", b"{damaged", b"[1]", "b"])
    found = _all(discover(lines, None, None), 2)
    assert found[0::3] == ["a", "b"]
    assert all(isinstance(one, RowUnreadable) for one in found[1:3])
    path = tmp_path / "a.parquet"
    raw = pa.array([b"one", b"caf\xe9", b"three"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    pq.write_table(pa.table({"text": text}), path)
    first, second, third = _all(discover(path, None, None), 2)
    assert (first, third) == ("one", "three")
    assert isinstance(second, RowUnreadable)


def test_what_cannot_be_meant_is_refused_by_name(tmp_path: Path) -> None:
    """A sentence that names the option and what there is."""
    write_parquet(tmp_path / "a.parquet", ["x"], pa.string())
    write_lines(tmp_path / "a.jsonl", ["x"])
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 but not really")
    (tmp_path / "empty").mkdir()
    raw = write_parquet(tmp_path / "raw.pq", [b"x"], pa.binary())
    two = tmp_path / "two.jsonl"
    two.write_text('{"title": "x", "caption": "y"}\n')
    cases: list[tuple[Path, str | None, Kind | None, str]] = [
        (tmp_path / "none", None, None, "INPUT: there is no none"),
        (tmp_path / "empty", None, None, "neither images nor"),
        (tmp_path, None, None, "both Parquet and JSON Lines"),
        (tmp_path / "a.parquet", "text", None, "--column: a.parquet has no column text; it has id"),
        (tmp_path / "a.parquet", "id", None, "--column: id of a.parquet holds int64"),
        (tmp_path / "broken.parquet", None, None, "cannot be read as Parquet"),
        (raw, None, "text", "not texts"),
        (two, None, None, "--column: name one of those of two.jsonl: title, caption"),
    ]
    for path, column, kind, sentence in cases:
        with pytest.raises(BulkError, match=sentence):
            discover(path, column, kind)


def test_images_beside_a_table_must_be_told_apart(tmp_path: Path) -> None:
    """Unless the column is named, nobody knows which of them is meant."""
    write_lines(tmp_path / "metadata.jsonl", ["a.png"], "file_name")
    (tmp_path / "a.png").write_bytes(picture(1))
    with pytest.raises(BulkError, match="images and tables"):
        discover(tmp_path, None, None)
    assert discover(tmp_path, "file_name", None).kind == "image"


def test_a_change_of_any_file_is_another_input(tmp_path: Path) -> None:
    """Name, size and time of change tell inputs apart."""
    path = write_lines(tmp_path / "a.jsonl", ["one", "two"])
    before = discover(tmp_path, None, None).fingerprint()
    assert discover(tmp_path, None, None).fingerprint() == before
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    touched = discover(tmp_path, None, None).fingerprint()
    write_lines(tmp_path / "b.jsonl", ["three"])
    assert len({before, touched, discover(tmp_path, None, None).fingerprint()}) == 3
