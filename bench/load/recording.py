"""The file between measuring and judging: JSON lines, each with its `record` name.

    run        once, first: the options, the machine, the time
    level      before the samples of a level: what was asked for
    sample     one for each request (see sample.py)
    generator  after them, one for each process: its load, its lag, what it checked
    end        last; `partial` says whether the run was cut off

A file without `end` is one whose run died; it reads as partial.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson

from bench.load.level import WARMUP, Level
from bench.load.sample import Sample

FORMAT = 1
BUSY_CPU = 0.8  # of a core
SLOW_LAG_MS = 10.0


class RecordingError(Exception):
    """The file is not a recording."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """How a generator process fared: only one that had time to spare measures the server."""

    level: int
    process: int
    cpu: float
    lag_p99_ms: float
    lag_max_ms: float
    connections: int
    checked: int
    check_stride: int

    @property
    def bound(self) -> bool:
        """It was the bottleneck, or near it."""
        return self.cpu > BUSY_CPU or self.lag_p99_ms > SLOW_LAG_MS


@dataclass(slots=True)
class Stage:
    """A level with all that was recorded of it."""

    level: Level
    samples: list[Sample] = field(default_factory=list)
    gauges: list[Gauge] = field(default_factory=list)


@dataclass(slots=True)
class Recording:
    """A whole run."""

    run: dict[str, Any] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=list)
    partial: bool = True

    @classmethod
    def read(cls, path: Path) -> Recording:
        """From a file.

        Raises:
            RecordingError: a line is not what it should be; it says which.
        """
        recording = cls()
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    recording._take(orjson.loads(line))
                except (ValueError, TypeError, KeyError, IndexError):
                    raise RecordingError(f"{path.name}: line {number} is no record") from None
        if not recording.run:
            raise RecordingError(f"{path.name}: no recording of a run")
        return recording

    @property
    def warmup(self) -> Stage | None:
        """The level that does not count, where there is one."""
        return next((one for one in self.stages if one.level.number == WARMUP), None)

    @property
    def measured(self) -> list[Stage]:
        """The levels that count."""
        return [one for one in self.stages if one.level.number != WARMUP]

    def _take(self, fields: dict[str, Any]) -> None:
        match fields.pop("record"):
            case "sample":
                self.stages[-1].samples.append(Sample(**fields))
            case "level":
                self.stages.append(Stage(Level(**fields)))
            case "generator":
                self.stages[-1].gauges.append(Gauge(**fields))
            case "run":
                self.run = fields
            case "end":
                self.partial = bool(fields["partial"])
            case _:
                raise ValueError


@dataclass(frozen=True, slots=True)
class Recorder:
    """Writes a recording, line by line."""

    file: IO[bytes]

    def run(self, fields: dict[str, Any]) -> None:
        self._write("run", {"format": FORMAT, **fields})

    def level(self, level: Level) -> None:
        self._write("level", asdict(level))

    def samples(self, lines: bytes) -> None:
        """Samples, encoded by the process that took them."""
        self.file.write(lines)

    def gauges(self, gauges: Iterable[Gauge]) -> None:
        for gauge in gauges:
            self._write("generator", asdict(gauge))
        self.file.flush()

    def end(self, partial: bool) -> None:
        self._write("end", {"partial": partial})
        self.file.flush()

    def _write(self, record: str, fields: dict[str, Any]) -> None:
        line = {"record": record, **fields}
        self.file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
