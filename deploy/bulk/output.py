"""What lies in OUTPUT: the Parquet files of finished blocks, and beside them what the run needs.

    rows-*.parquet    one block, whole: it is written under another name first
    manifest.json     what the run was asked for, so that only the same run is resumed
    .lock             held while a run writes; it falls with the process, kill -9 included
    .rows-*.tries     how often a block was begun that is not finished yet

    file string | row int64 | embedding fixed_size_list<float32>[dim] | tokens int32
    truncated bool | error string

A refused row has a null `embedding` and its code in `error`. The schema's metadata names the model
and its space, and holds the fingerprint under which the cache keeps the same vectors.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from cache import Entry
from deploy.bulk.source import Block, BulkError
from litapi.checkpoint import SPACE_KEY
from litapi.errors import ItemError

NAME = "manifest.json"
LOCK = ".lock"
VERSION = 1
SPOKEN = {  # how a difference is named to the person who made it
    "input": "INPUT has other files, or they were changed",
    "model": "--model, --precision or another option that changes vectors is not the same",
    "limits": "the limits of texts and images are not the same",
    "kind": "--kind is not the same",
    "column": "--column is not the same",
    "block_rows": "--block-rows is not the same",
    "version": "it was written by another version",
}
FINGERPRINT = b"siglit.fingerprint"
MODEL = b"siglit.model"

Row = Entry | ItemError

MOST_TRIES = 5


@dataclass(frozen=True, slots=True)
class Manifest:
    """`input` and `model` are fingerprints, `limits` what decides which rows are refused."""

    input: str
    model: str
    limits: str
    kind: str
    column: str
    block_rows: int
    version: int = VERSION

    def settle(self, folder: Path) -> None:
        """Write it, or compare it with the one that is there.

        Raises BulkError where the folder holds another run, or something that is none.
        """
        path = folder / NAME
        if path.exists():
            self._compare(path)
            return
        if any(one.name != LOCK for one in folder.iterdir()):
            raise BulkError("OUTPUT: the folder is not empty and holds no run of this command")
        partial = path.with_suffix(".part")
        partial.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2) + b"\n")
        partial.replace(path)

    def _compare(self, path: Path) -> None:
        there = _read(path)
        for name, ours in asdict(self).items():
            if there.get(name) != ours:
                raise BulkError(
                    f"OUTPUT holds another run and is not resumed: {SPOKEN[name]}. Ask as before, "
                    "or give another folder."
                )


def _read(path: Path) -> dict[str, Any]:
    try:
        there = orjson.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BulkError(f"OUTPUT: its {NAME} cannot be read") from error
    if not isinstance(there, dict):
        raise BulkError(f"OUTPUT: its {NAME} is none")
    return there


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The folder, made where it is missing, for one run at a time."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / LOCK).open("wb")
    except OSError as error:
        raise BulkError("OUTPUT: the folder cannot be written") from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BulkError("OUTPUT: another run is writing there") from None
        yield


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


def begin(folder: Path, block: Block) -> bool:
    """Count one more attempt, and say whether the block may be tried: a row that kills whoever
    decodes it must not do so for ever.

    Ray gives a block whose worker died to the next one, as often as it takes, because it cannot
    tell a lost node from a deadly row. So each begin leaves a mark on the disk, and `end` takes it
    away.
    """
    with _tries(folder, block).open("ab") as mark:
        mark.write(b".")
        return mark.tell() <= MOST_TRIES


def end(folder: Path, block: Block) -> None:
    _tries(folder, block).unlink(missing_ok=True)


def _tries(folder: Path, block: Block) -> Path:
    return folder / f".{block.name}.tries"
