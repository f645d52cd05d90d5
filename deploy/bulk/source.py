"""What is embedded: a folder of images, or one column of Parquet or JSON Lines files.

A source finds out by itself which column and which kind are meant where only one can be, and asks
for `--column` or `--kind` where not. It is small and picklable: every worker has one, and reads the
rows of its blocks itself, from a disk that all nodes see.
"""

from __future__ import annotations

import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.bulk.block import Block, pictures
from litapi.messages import Kind
from litapi.settings import IMAGE_FORMATS

PICTURES = frozenset({*(f".{name}" for name in IMAGE_FORMATS), ".jpg", ".tif"})
SAMPLED = 100  # rows that are looked at to tell texts from paths of images


class SourceError(Exception):
    """The input cannot be embedded; the text is the line that says why."""


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
        return pictures(self.files, rows)

    def values(self, block: Block) -> list[Any]:
        return list(block.names)


def kind_of(values: Iterable[Any]) -> Kind:
    """Images where all that is there are bytes, or texts that end like file names of images.

    Looks at the first hundred that are there. Raises SourceError where none is.
    """
    rest = iter(values)
    first = next(rest, "")  # of no rows at all nothing need be known
    told = (value for value in itertools.chain((first,), rest) if value is not None)
    looked_at = list(itertools.islice(told, SAMPLED))
    if not looked_at:
        raise SourceError("--kind: there is no value from which to tell texts from images")
    return "image" if all(map(_like_a_picture, looked_at)) else "text"


def _like_a_picture(value: Any) -> bool:
    if isinstance(value, str):
        return value.startswith("data:image/") or Path(value).suffix.lower() in PICTURES
    return isinstance(value, bytes | dict)


def only(columns: Sequence[str], column: str | None, where: str) -> str:
    """The column that was asked for, or the only one. Raises SourceError, which names them."""
    if column is not None and column not in columns:
        raise SourceError(f"--column: {where} has no column {column}; it has {_listed(columns)}")
    if column is None and len(columns) != 1:
        raise SourceError(f"--column: name one of those of {where}: {_listed(columns)}")
    return column if column is not None else columns[0]


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(columns) or "none that can be embedded"
