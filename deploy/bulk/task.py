"""What every worker of a run is told, and what it tells of each block. Both are plain data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from deploy.bulk.source import Source
from litapi.checkpoint import Checkpoint, CheckpointError
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
        mine = open_checkpoint(self.settings, self.checkpoint)
        if not mine.is_like(self.checkpoint):
            raise CheckpointError(
                f"this node has other files of {mine.name} than the one that began the run"
            )
        return replace(self, checkpoint=mine)


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


def open_checkpoint(settings: Settings, known: Checkpoint | None = None) -> Checkpoint:
    """The checkpoint under the name that the service gives it: vectors are kept under it.

    `known` itself, if these are its very files.
    """
    if known is not None and known.is_unchanged:
        return known
    return Checkpoint.named(settings.model, settings.revision, settings.compile_folder)
