"""Which source a path is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deploy.bulk.json_lines import JsonLines
from deploy.bulk.parquet_column import ParquetColumn
from deploy.bulk.source import PICTURES, PictureFolder, Source, SourceError
from litapi.messages import Kind

PARQUET = frozenset({".parquet", ".pq"})
LINES = frozenset({".jsonl", ".ndjson"})


def discover(path: Path, column: str | None, kind: Kind | None) -> Source:
    """The source at `path`: a table, or a folder of tables or of images.

    Raises SourceError in one line where there is none, or where it could be several.
    """
    if not path.exists():
        raise SourceError(f"INPUT: there is no {path.name}")
    root = path if path.is_dir() else path.parent
    names = sorted(_below(path)) if path.is_dir() else [path.name]
    parquet, lines, images = (_of(names, one) for one in (PARQUET, LINES, PICTURES))
    if parquet and lines:
        raise SourceError("INPUT: the folder holds both Parquet and JSON Lines; give one of them")
    if (parquet or lines) and images and column is None:
        raise SourceError(
            "INPUT: the folder holds images and tables; --column reads the tables, or give the "
            "images a folder of their own"
        )
    if parquet:
        return ParquetColumn.open(root, parquet, column, kind)
    if lines:
        return JsonLines.open(root, lines, column, kind)
    if not images:
        raise SourceError("INPUT: neither images nor .parquet nor .jsonl files are there")
    if column is not None or kind == "text":
        raise SourceError(f"{'--column' if column else '--kind'}: INPUT is a folder of images")
    return PictureFolder(root, tuple(images), "image")


def _below(folder: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]


def _of(names: Sequence[str], suffixes: frozenset[str]) -> list[str]:
    return [name for name in names if Path(name).suffix.lower() in suffixes]
