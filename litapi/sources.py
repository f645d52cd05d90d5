"""Arguments of a command → items: texts by line, pictures by path or folder, in the order given."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from litapi.client.pictures import SUFFIXES, found_in
from litapi.messages import Kind

STDIN = Path("-")


class SourceError(Exception):
    """There is nothing to read; its text is the line that says so."""


@dataclass(frozen=True, slots=True)
class Source:
    kind: Kind
    paths: Sequence[Path]  # one file of texts, or any number of pictures

    def items(self) -> Iterator[str]:
        if self.kind == "image":
            yield from map(str, self.paths)
        elif self.paths[0] == STDIN:
            yield from _lines(sys.stdin)
        else:
            with self.paths[0].open(encoding="utf-8", errors="replace") as lines:
                yield from _lines(lines)


def sources(paths: Iterable[Path]) -> list[Source]:
    """Raises SourceError where a path is missing."""
    return [_source(path) for path in paths]


def _source(path: Path) -> Source:
    if path != STDIN and not path.exists():
        raise SourceError(f"{path.name} does not exist")
    if path.is_dir():
        return Source("image", found_in(path))
    return Source("image" if path.suffix.lower() in SUFFIXES else "text", [path])


def _lines(stream: Iterable[str]) -> Iterator[str]:
    return (line.rstrip("\r\n") for line in stream if line.strip())


def chunks(found: Iterable[Source], size: int) -> Iterator[tuple[Kind, list[str]]]:
    for kind, group in itertools.groupby(found, lambda source: source.kind):
        items = itertools.chain.from_iterable(source.items() for source in group)
        while chunk := list(itertools.islice(items, size)):
            yield kind, chunk
