"""The Parquet file of a finished block: it is there whole or not at all.

    file string | row int64 | embedding fixed_size_list<float32>[dim] | tokens int32
    truncated bool | error string

A refused row has a null `embedding` and its code in `error`. The schema's metadata names the model
and its space, and holds the fingerprint under which the cache keeps the same vectors.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cache import Entry
from deploy.bulk.block import Block
from litapi.checkpoint import SPACE_KEY
from litapi.errors import ItemError

FINGERPRINT = b"siglit.fingerprint"
MODEL = b"siglit.model"

Row = Entry | ItemError


@dataclass(frozen=True, slots=True)
class VectorFile:
    """Writes the files of one run."""

    folder: Path
    dim: int
    model: str
    fingerprint: str
    space: str

    def write(self, block: Block, rows: Sequence[Row]) -> None:
        """The rows of a block, in order. Written under another name first, and on the disk before
        it gets its own."""
        partial = self.folder / f".{block.name}.{uuid4().hex}.part"
        with partial.open("wb") as stream:
            pq.write_table(self._table(block, rows), stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(self.folder / block.name)

    def _table(self, block: Block, rows: Sequence[Row]) -> Any:
        files, numbers = zip(*block.places(), strict=True)
        good = [row if isinstance(row, Entry) else None for row in rows]
        columns = {
            "file": pa.array([_utf8(name) for name in files], pa.string()),
            "row": pa.array(numbers, pa.int64()),
            "embedding": self._vectors(good),
            "tokens": pa.array([row and row.tokens for row in good], pa.int32()),
            "truncated": pa.array([row and row.truncated for row in good], pa.bool_()),
            "error": pa.array([r.code if isinstance(r, ItemError) else None for r in rows]),
        }
        columns["error"] = columns["error"].cast(pa.string())
        told = {FINGERPRINT: self.fingerprint, MODEL: self.model, SPACE_KEY: self.space}
        return pa.table(columns).replace_schema_metadata({k: v.encode() for k, v in told.items()})

    def _vectors(self, rows: Sequence[Entry | None]) -> Any:
        blank = bytes(4 * self.dim)
        flat = np.frombuffer(b"".join(row.vector if row else blank for row in rows), "<f4")
        absent = pa.array([row is None for row in rows])
        return pa.FixedSizeListArray.from_arrays(pa.array(flat), self.dim, mask=absent)


def _utf8(name: str) -> str:
    """A file's name may be any bytes; Parquet's texts may not."""
    return name.encode(errors="replace").decode()


def finished(folder: Path) -> set[str]:
    """The names of the blocks that are there."""
    return {path.name for path in folder.glob("rows-*.parquet")}


def fingerprint_of(path: Path) -> str:
    """The fingerprint that a finished block was computed under."""
    return str((pq.read_schema(path).metadata or {}).get(FINGERPRINT, b"").decode())


def sweep(folder: Path) -> None:
    """Remove what a killed run left half written, and its count of attempts."""
    for path in folder.glob(".rows-*"):
        path.unlink(missing_ok=True)
