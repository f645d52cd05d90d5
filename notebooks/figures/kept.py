"""A committed result as a notebook reads it: there, or missed in one clear sentence.

A notebook must run on a fresh checkout, where a measurement may not have been made yet. Printed, a
`Kept` says when and on what it was measured, or how to measure it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import orjson

from bench.rig.result_file import RESULTS

T = TypeVar("T")


@dataclass(frozen=True, slots=True, repr=False)
class Kept:
    """`bench/results/NAME.json`; `fields` is None where that file is not there."""

    name: str
    command: str
    fields: dict[str, Any] | None

    @classmethod
    def of(cls, name: str, command: str, folder: Path = RESULTS) -> Self:
        """`command` is what measures it."""
        path = folder / f"{name}.json"
        return cls(name, command, orjson.loads(path.read_bytes()) if path.exists() else None)

    def show(self, draw: Callable[[dict[str, Any]], T]) -> T | None:
        """What `draw` makes of the fields; None where they are missing."""
        return None if self.fields is None else draw(self.fields)

    def __repr__(self) -> str:
        if self.fields is None:
            return f"{self.name}.json is not in bench/results yet: run `{self.command}` first."
        machine = self.fields["machine"]
        where = machine["gpu"] or f"{machine['cores']} cores of {machine['cpu']}"
        return f"{self.name}.json: measured on {self.fields['date']}, {where}."
