"""What a run was asked for, kept beside its blocks, so that only the same run is resumed.

OUTPUT/manifest.json     written before the first block
OUTPUT/.lock             held while a run writes; it falls with the process, kill -9 included
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

NAME = "manifest.json"
LOCK = ".lock"
VERSION = 1
SPOKEN = {  # how a difference is named to the person who made it
    "input": "INPUT has other files, or they were changed",
    "model": "--model, --precision or another option that changes vectors is not the same",
    "limits": "the limits of texts and images are not the same",
    "kind": "--kind is not the same",
    "column": "--column is not the same",
    "block_rows": "--block-rows is not the same",
    "version": "it was written by another version",
}


class ManifestError(Exception):
    """The output belongs to something else; the text is the line that says why."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """`input` and `model` are fingerprints, `limits` what decides which rows are refused."""

    input: str
    model: str
    limits: str
    kind: str
    column: str
    block_rows: int
    version: int = VERSION

    def settle(self, folder: Path) -> None:
        """Write it, or compare it with the one that is there.

        Raises ManifestError where the folder holds another run, or something that is none.
        """
        path = folder / NAME
        if path.exists():
            self._compare(path)
            return
        if any(one.name != LOCK for one in folder.iterdir()):
            raise ManifestError("OUTPUT: the folder is not empty and holds no run of this command")
        partial = path.with_suffix(".part")
        partial.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2) + b"\n")
        partial.replace(path)

    def _compare(self, path: Path) -> None:
        there = _read(path)
        for name, ours in asdict(self).items():
            if there.get(name) != ours:
                raise ManifestError(
                    f"OUTPUT holds another run and is not resumed: {SPOKEN[name]}. Ask as before, "
                    "or give another folder."
                )


def _read(path: Path) -> dict[str, Any]:
    try:
        there = orjson.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ManifestError(f"OUTPUT: its {NAME} cannot be read") from error
    if not isinstance(there, dict):
        raise ManifestError(f"OUTPUT: its {NAME} is none")
    return there


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The folder, made where it is missing, for one run at a time."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / LOCK).open("wb")
    except OSError as error:
        raise ManifestError("OUTPUT: the folder cannot be written") from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ManifestError("OUTPUT: another run is writing there") from None
        yield
