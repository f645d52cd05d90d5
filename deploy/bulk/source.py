"""What is embedded: a folder of images, or one column of Parquet or JSON Lines files.

A source finds out by itself which column and which kind are meant where only one can be, and asks
for `--column` or `--kind` where not. It is small and picklable: every worker has one, and reads the
rows of its blocks itself, from a disk that all nodes see.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from litapi.errors import ItemError
from litapi.messages import Kind
from litapi.settings import IMAGE_FORMATS

PICTURES = frozenset({*(f".{name}" for name in IMAGE_FORMATS), ".jpg", ".tif"})
PARQUET = frozenset({".parquet", ".pq"})
LINES = frozenset({".jsonl", ".ndjson"})
SAMPLED = 100  # rows that are looked at to tell texts from paths of images


class BulkError(Exception):
    """What was asked for cannot be done; the text is the line that says why."""


# The codes of rows that are refused before they are a text or an image stand in the `error` column
# of the output, beside those of litapi.errors, and mean the same for ever.


class RowNull(ItemError):
    code = "row_null"
    sentence = "The row has no value."


class RowTypeWrong(ItemError):
    code = "row_type_wrong"
    sentence = "The row holds neither a text nor, where images are read, a path or bytes."


class RowUnreadable(ItemError):
    code = "row_unreadable"
    sentence = "The line is not a JSON object."


class ImageMissing(ItemError):
    code = "image_missing"
    sentence = "There is no such file, or it may not be read."
    deterministic = False


@dataclass(frozen=True, slots=True)
class Block:
    """`rows` rows, the first of which is row `first` of the whole input: given to a worker, done
    and resumed as a whole.

    They stand in `file` from its row `start` on, in JSON Lines at the byte `offset`. In a folder of
    images each row is a file, and `names` holds them instead.
    """

    first: int
    rows: int
    file: str = ""
    start: int = 0
    offset: int = 0
    names: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the file that its vectors go to. The same input cut the same way gives the same names,
        and the names in order are the input in order."""
        return f"rows-{self.first:012d}-{self.first + self.rows - 1:012d}.parquet"

    def places(self) -> Iterator[tuple[str, int]]:
        """File and row in it, of each row."""
        if self.names:
            return ((name, 0) for name in self.names)
        return ((self.file, self.start + number) for number in range(self.rows))


def cut(many: int, rows: int) -> Iterator[tuple[int, int]]:
    """Start and length of each block of `many` rows."""
    return ((start, min(rows, many - start)) for start in range(0, many, rows))


@dataclass(frozen=True, slots=True)
class Source(ABC):
    """`files` below `root`, by name, and what stands in them."""

    root: Path
    files: tuple[str, ...]
    kind: Kind
    column: str = ""  # none in a folder of images

    @abstractmethod
    def blocks(self, rows: int) -> Iterator[Block]:
        """The whole input in blocks of at most `rows`, none across two tables."""

    @abstractmethod
    def values(self, block: Block) -> list[Any]:
        """The rows of a block as they stand there; an ItemError for one that cannot be read."""

    def folder(self, block: Block) -> Path:
        """What the paths in a block are relative to."""
        return (self.root / block.file).parent if block.file else self.root

    def fingerprint(self) -> str:
        """Of the names, sizes and times of change of the files; their contents are not read."""
        state = hashlib.sha256()
        for name in self.files:
            facts = (self.root / name).stat()
            state.update(f"{name}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode(errors="replace"))
        return state.hexdigest()


class PictureFolder(Source):
    """Images; each file is a row."""

    def blocks(self, rows: int) -> Iterator[Block]:
        for start, length in cut(len(self.files), rows):
            yield Block(start, length, names=self.files[start : start + length])

    def values(self, block: Block) -> list[Any]:
        return list(block.names)


class JsonLines(Source):
    """One member of the objects of JSON Lines files: texts, or paths or data URIs of images.

    One object a line, empty lines are no rows. A line that is no object is a row all the same,
    refused by its code, so that a damaged line moves no other row.
    """

    @classmethod
    def open(cls, root: Path, files: Sequence[str], column: str | None, kind: Kind | None) -> Self:
        """Raises BulkError where no row that was looked at has the column."""
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


class ParquetColumn(Source):
    """One column of Parquet files: texts, paths or bytes of images, or the struct of bytes and path
    that image data sets use.

    A row group is the least that Parquet decodes, and a block may be less, so a worker keeps the
    group that it read last: its next block is likely to lie there too.
    """

    @classmethod
    def open(cls, root: Path, files: Sequence[str], column: str | None, kind: Kind | None) -> Self:
        """Raises BulkError where a file is damaged or the column is not in it."""
        schema = _opened(root / files[0]).schema_arrow
        eligible = [field.name for field in schema if _family(field.type)]
        column = only(eligible if column is None else schema.names, column, files[0])
        for name in files:
            _refuse_unlike(_opened(root / name).schema_arrow, column, kind, name)
        if kind is None and _family(schema.field(column).type) != "text":
            kind = "image"
        found = (value for name in files for value in _sampled(root / name, column))
        return cls(root, tuple(files), kind or kind_of(found), column)

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
        raise BulkError(f"{path.name} cannot be read as Parquet") from error


@functools.lru_cache(maxsize=64)
def _ends(path: Path) -> list[int]:
    """The row behind each row group."""
    facts = _opened(path).metadata
    return list(
        itertools.accumulate(facts.row_group(n).num_rows for n in range(facts.num_row_groups))
    )


@functools.lru_cache(maxsize=1)
def _group(path: Path, group: int, column: str) -> Any:
    return _opened(path).read_row_group(group, columns=[column]).column(column)


def _family(kind: Any) -> str:
    """Text, bytes, struct of bytes and path, or "" for what cannot be embedded."""
    if pa.types.is_dictionary(kind):
        return _family(kind.value_type)
    if pa.types.is_struct(kind):
        return "struct" if {field.name for field in kind} & {"bytes", "path"} else ""
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    if any(is_so(kind) for is_so in texts):
        return "text"
    plain = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return "bytes" if any(is_so(kind) for is_so in plain) else ""


def _refuse_unlike(schema: Any, column: str, kind: Kind | None, name: str) -> None:
    if column not in schema.names:
        raise BulkError(f"--column: {name} has no column {column}")
    found = schema.field(column).type
    family = _family(found)
    if not family or (kind == "text" and family != "text"):
        wanted = "texts" if kind == "text" else "texts, paths or bytes"
        raise BulkError(f"--column: {column} of {name} holds {found}, not {wanted}")


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


def kind_of(values: Iterable[Any]) -> Kind:
    """Images where all that is there are bytes, or texts that end like file names of images.

    Looks at the first hundred that are there. Raises BulkError where none is.
    """
    rest = iter(values)
    first = next(rest, "")  # of no rows at all nothing need be known
    told = (value for value in itertools.chain((first,), rest) if value is not None)
    looked_at = list(itertools.islice(told, SAMPLED))
    if not looked_at:
        raise BulkError("--kind: there is no value from which to tell texts from images")
    return "image" if all(map(_like_a_picture, looked_at)) else "text"


def _like_a_picture(value: Any) -> bool:
    if isinstance(value, str):
        return value.startswith("data:image/") or Path(value).suffix.lower() in PICTURES
    return isinstance(value, bytes | dict)


def only(columns: Sequence[str], column: str | None, where: str) -> str:
    """The column that was asked for, or the only one. Raises BulkError, which names them."""
    if column is not None and column not in columns:
        raise BulkError(f"--column: {where} has no column {column}; it has {_listed(columns)}")
    if column is None and len(columns) != 1:
        raise BulkError(f"--column: name one of those of {where}: {_listed(columns)}")
    return column if column is not None else columns[0]


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(columns) or "none that can be embedded"


def discover(path: Path, column: str | None, kind: Kind | None) -> Source:
    """The source at `path`: a table, or a folder of tables or of images.

    Raises BulkError in one line where there is none, or where it could be several.
    """
    if not path.exists():
        raise BulkError(f"INPUT: there is no {path.name}")
    root = path if path.is_dir() else path.parent
    names = sorted(_below(path)) if path.is_dir() else [path.name]
    parquet, lines, images = (_of(names, one) for one in (PARQUET, LINES, PICTURES))
    if parquet and lines:
        raise BulkError("INPUT: the folder holds both Parquet and JSON Lines; give one of them")
    if (parquet or lines) and images and column is None:
        raise BulkError(
            "INPUT: the folder holds images and tables; --column reads the tables, or give the "
            "images a folder of their own"
        )
    if parquet:
        return ParquetColumn.open(root, parquet, column, kind)
    if lines:
        return JsonLines.open(root, lines, column, kind)
    if not images:
        raise BulkError("INPUT: neither images nor .parquet nor .jsonl files are there")
    if column is not None or kind == "text":
        raise BulkError(f"{'--column' if column else '--kind'}: INPUT is a folder of images")
    return PictureFolder(root, tuple(images), "image")


def _below(folder: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]


def _of(names: Sequence[str], suffixes: frozenset[str]) -> list[str]:
    return [name for name in names if Path(name).suffix.lower() in suffixes]
