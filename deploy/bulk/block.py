"""A run of rows of the input: given to a worker, finished and resumed as a whole.

Its name holds the numbers of its rows in the whole input, so the same input cut the same way gives
the same names, and the names in order are the input in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Block:
    """`rows` rows of which the first is row `first` of the whole input.

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
        """The name of the file that its vectors go to."""
        return f"rows-{self.first:012d}-{self.first + self.rows - 1:012d}.parquet"

    def places(self) -> Iterator[tuple[str, int]]:
        """File and row in it, of each row."""
        if self.names:
            return ((name, 0) for name in self.names)
        return ((self.file, self.start + number) for number in range(self.rows))


def cut(many: int, rows: int) -> Iterator[tuple[int, int]]:
    """Start and length of each block of `many` rows."""
    return ((start, min(rows, many - start)) for start in range(0, many, rows))


def pictures(names: Sequence[str], rows: int) -> Iterator[Block]:
    """The blocks of a folder of images."""
    for start, length in cut(len(names), rows):
        yield Block(start, length, names=tuple(names[start : start + length]))
