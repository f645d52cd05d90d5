"""Small inputs of every kind, and what a run made of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def write_lines(path: Path, values: Sequence[Any], column: str = "caption") -> Path:
    """A JSON Lines file of one member; bytes go in as the line they are."""
    lines = [v if isinstance(v, bytes) else json.dumps({column: v}).encode() for v in values]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def write_parquet(path: Path, values: Sequence[Any], kind: Any, group: int = 100) -> Path:
    """A Parquet file with the values in `item` and their numbers in `id`."""
    columns = {"id": pa.array(range(len(values))), "item": pa.array(values, kind)}
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


def rows_of(output: Path) -> list[dict[str, Any]]:
    """All rows of a run in the order of its files."""
    files = sorted(output.glob("rows-*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]
