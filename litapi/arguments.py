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


class ArgumentError(Exception):
    """There is nothing to read; its text is the line that says so."""


@dataclass(frozen=True, slots=True)
class Argument:
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


def arguments(paths: Iterable[Path]) -> list[Argument]:
    """Raises ArgumentError where a path is missing."""
    return [_argument(path) for path in paths]


def _argument(path: Path) -> Argument:
    if path != STDIN and not path.exists():
        raise ArgumentError(f"{path.name} does not exist")
    if path.is_dir():
        return Argument("image", found_in(path))
    return Argument("image" if path.suffix.lower() in SUFFIXES else "text", [path])


def _lines(stream: Iterable[str]) -> Iterator[str]:
    return (line.rstrip("\r\n") for line in stream if line.strip())


def chunks(found: Iterable[Argument], size: int) -> Iterator[tuple[Kind, list[str]]]:
    for kind, group in itertools.groupby(found, lambda one: one.kind):
        items = itertools.chain.from_iterable(one.items() for one in group)
        while chunk := list(itertools.islice(items, size)):
            yield kind, chunk
