"""How often a block was begun: a row that kills whoever decodes it must not do so for ever.

Ray gives a block whose worker died to the next one, as often as it takes, because it cannot tell a
lost node from a deadly row. So each begin leaves a mark on the disk, and the end takes it away.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploy.bulk.block import Block

MOST = 5
MARK = ".tries"


@dataclass(frozen=True, slots=True)
class Attempts:
    """The marks of one run, beside its files."""

    folder: Path

    def begin(self, block: Block) -> bool:
        """Count one more, and say whether it may be tried."""
        with self._path(block).open("ab") as mark:
            mark.write(b".")
            return mark.tell() <= MOST

    def end(self, block: Block) -> None:
        """The block is finished."""
        self._path(block).unlink(missing_ok=True)

    def _path(self, block: Block) -> Path:
        return self.folder / f".{block.name}{MARK}"
