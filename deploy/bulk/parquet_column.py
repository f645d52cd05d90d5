"""One column of Parquet files.

A row group is the least that Parquet decodes, and a block may be less, so a worker keeps the group
that it read last: its next block is likely to lie there too.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from deploy.bulk.block import Block, cut
from deploy.bulk.fault import RowUnreadable
from deploy.bulk.source import SAMPLED, Source, SourceError, kind_of, only
from litapi.messages import Kind


class ParquetColumn(Source):
    """Texts, paths or bytes of images, or the struct of bytes and path that image data sets use."""

    @classmethod
    def open(cls, root: Path, files: Sequence[str], column: str | None, kind: Kind | None) -> Self:
        """Raises SourceError where a file is damaged or the column is not in it."""
        schema = _opened(root / files[0]).schema_arrow
        eligible = [field.name for field in schema if _family(field.type)]
        column = only(eligible if column is None else schema.names, column, files[0])
        for name in files:
            _refuse_unlike(_opened(root / name).schema_arrow, column, kind, name)
        if kind is None:
            kind = _kind([root / name for name in files], column)
        return cls(root, tuple(files), kind, column)

    def blocks(self, rows: int) -> Iterator[Block]:
        first = 0
        for name in self.files:
            many = _opened(self.root / name).metadata.num_rows
            for start, length in cut(many, rows):
                yield Block(first + start, length, name, start)
            first += many

    def values(self, block: Block) -> list[Any]:
        path, wanted = self.root / block.file, range(block.start, block.start + block.rows)
        ends = _ends(path)
        found: list[Any] = []
        for group in range(bisect_right(ends, wanted.start), len(ends)):
            begin = ends[group - 1] if group else 0
            if begin >= wanted.stop:
                break
            start, stop = max(wanted.start, begin), min(wanted.stop, ends[group])
            whole = _group(path, group, self.column)
            found += _plain(whole.slice(start - begin, stop - start))
        return found


def _opened(path: Path) -> Any:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path.name} cannot be read as Parquet") from error


@functools.lru_cache(maxsize=64)
def _ends(path: Path) -> list[int]:
    """The row behind each row group."""
    facts = _opened(path).metadata
    return list(accumulate(facts.row_group(n).num_rows for n in range(facts.num_row_groups)))


@functools.lru_cache(maxsize=1)
def _group(path: Path, group: int, column: str) -> Any:
    return _opened(path).read_row_group(group, columns=[column]).column(column)


def _family(kind: Any) -> str:
    """Text, bytes, struct of bytes and path, or "" for what cannot be embedded."""
    if pa.types.is_dictionary(kind):
        return _family(kind.value_type)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "text"
    if pa.types.is_struct(kind):
        names = {kind.field(number).name for number in range(kind.num_fields)}
        return "struct" if names & {"bytes", "path"} else ""
    plain = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return "bytes" if any(is_so(kind) for is_so in plain) else ""


def _refuse_unlike(schema: Any, column: str, kind: Kind | None, name: str) -> None:
    if column not in schema.names:
        raise SourceError(f"--column: {name} has no column {column}")
    found = schema.field(column).type
    family = _family(found)
    if not family or (kind == "text" and family != "text"):
        wanted = "texts" if kind == "text" else "texts, paths or bytes"
        raise SourceError(f"--column: {column} of {name} holds {found}, not {wanted}")


def _kind(paths: Sequence[Path], column: str) -> Kind:
    if _family(_opened(paths[0]).schema_arrow.field(column).type) != "text":
        return "image"
    return kind_of(value for path in paths for value in _sampled(path, column))


def _sampled(path: Path, column: str) -> Iterator[Any]:
    for batch in _opened(path).iter_batches(SAMPLED, columns=[column]):
        yield from (v for v in _plain(batch.column(column)) if not isinstance(v, RowUnreadable))


def _plain(values: Any) -> list[Any]:
    """As Python has them; a text that is not UTF-8 is a row that cannot be read, no other one."""
    try:
        return list(values.to_pylist())
    except UnicodeDecodeError:
        return [_read(value) for value in values]


def _read(value: Any) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return RowUnreadable()
