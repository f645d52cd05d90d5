"""What every worker of a run is told, and what it tells of each block. Both are plain data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from deploy.bulk.source import Source
from litapi.checkpoint import Checkpoint, fetch
from litapi.settings import Settings


@dataclass(frozen=True, slots=True)
class Task:
    """`fingerprint` is that of the blocks that are finished already; empty where none is."""

    settings: Settings
    checkpoint: Checkpoint
    source: Source
    output: Path
    fingerprint: str
    device: str

    def here(self) -> Task:
        """The same with the checkpoint as it lies on this node: the hub's cache may not be shared.

        Raises CheckpointError where it cannot be had.
        """
        if self.checkpoint.folder.is_dir():
            return self
        return replace(self, checkpoint=open_checkpoint(self.settings))


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a block. `refusal` is the sentence of a worker that computes nothing.

    `began` and `ended` are seconds of the wall clock, which nodes share.
    """

    rows: int = 0
    refused: int = 0
    known: int = 0  # found in the cache
    began: float = 0.0
    ended: float = 0.0
    refusal: str = ""


def open_checkpoint(settings: Settings) -> Checkpoint:
    """The checkpoint under the name that the service gives it: vectors are kept under it."""
    folder = fetch(settings.model, settings.revision)
    by_name = settings.model and not Path(settings.model).is_dir()
    return Checkpoint.open(folder, settings.model if by_name else None, settings.revision)
