"""One member of the objects of JSON Lines files: one object a line, empty lines are no rows.

A line that is no object is a row all the same, refused by its code, so that a damaged line moves no
other row.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

import orjson

from deploy.bulk.block import Block
from deploy.bulk.fault import RowUnreadable
from deploy.bulk.source import SAMPLED, Source, kind_of, only
from litapi.messages import Kind


class JsonLines(Source):
    """Texts, or paths or data URIs of images."""

    @classmethod
    def open(cls, root: Path, files: Sequence[str], column: str | None, kind: Kind | None) -> Self:
        """Raises SourceError where no row that was looked at has the column."""
        objects = (row for name in files for row in _objects(root / name))
        found = list(itertools.islice(objects, SAMPLED))
        names = list(dict.fromkeys(name for row in found for name in row))
        texts = [n for n in names if any(isinstance(row.get(n), str) for row in found)]
        column = only(texts if column is None else names, column, files[0])
        return cls(root, tuple(files), kind or kind_of(row.get(column) for row in found), column)

    def blocks(self, rows: int) -> Iterator[Block]:
        first = 0
        for name in self.files:
            start = 0
            for offset, length in _cut(self.root / name, rows):
                yield Block(first, length, name, start, offset)
                first, start = first + length, start + length

    def values(self, block: Block) -> list[Any]:
        with (self.root / block.file).open("rb") as stream:
            stream.seek(block.offset)
            return [self._value(line) for line in itertools.islice(_lines(stream), block.rows)]

    def _value(self, line: bytes) -> Any:
        row = _object(line)
        return RowUnreadable() if row is None else row.get(self.column)


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    return (line for line in stream if line.strip())


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as stream:
        yield from (row for line in _lines(stream) if (row := _object(line)) is not None)


def _cut(path: Path, rows: int) -> Iterator[tuple[int, int]]:
    """Byte and length of each block of a file."""
    offset = start = length = 0
    with path.open("rb") as stream:
        for line in stream:
            if line.strip():
                length += 1
            offset += len(line)
            if length == rows:
                yield start, length
                start, length = offset, 0
    if length:
        yield start, length


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        row = orjson.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
