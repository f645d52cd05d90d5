"""The file between measuring and judging: JSON lines, each with its `record` name.

    run        once, first: the options, the machine, the time
    level      before the samples of a level: what was asked for
    sample     one for each request that was sent
    generator  after them, one for each process: its load, its lag, what it checked
    end        last; `partial` says whether the run was cut off

A file without `end` is one whose run died; it reads as partial.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson

from bench.load.level import WARMUP, Level

FORMAT = 1
BUSY_CPU = 0.8  # of a core
SLOW_LAG_MS = 10.0
BUSY = 429
DURATION = re.compile(r"\s*dur\s*=\s*(\d+\.?\d*|\.\d+)\s*")
STOPPED = "stopped"  # cut off by Ctrl-C: neither good nor bad


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
    level: Level
    samples: list[Sample] = field(default_factory=list)
    gauges: list[Gauge] = field(default_factory=list)


@dataclass(slots=True)
class Recording:
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
        return next((one for one in self.stages if one.level.number == WARMUP), None)

    @property
    def measured(self) -> list[Stage]:
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


@dataclass(slots=True)
class Sample:
    """`status` 0: no answer came. `error` names why a point failed; a 429 is not a failure."""

    level: int
    number: int
    target: str
    items: int
    scheduled: float
    sent: float
    first_byte: float | None
    done: float
    status: int = 0
    error: str | None = None
    size: int = 0  # bytes of the body
    checked: bool = False
    cache: dict[str, int] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def latency(self) -> float:
        """Seconds from when it was due until its last byte."""
        return self.done - min(self.scheduled, self.sent)

    @property
    def good(self) -> bool:
        """Answered, and as far as it was looked at, right."""
        return self.error is None and self.status != BUSY

    @property
    def failed(self) -> bool:
        """Answered wrong or not at all; being told to come later is not a failure."""
        return self.error not in (None, STOPPED)

    def line(self) -> bytes:
        fields = {name: getattr(self, name) for name in Sample.__slots__}
        plain = {k: round(v, 6) if isinstance(v, float) else v for k, v in fields.items()}
        return orjson.dumps({"record": "sample"} | plain, option=orjson.OPT_APPEND_NEWLINE)


def states(value: bytes) -> dict[str, int]:
    """How often each state stands in `X-Cache`."""
    names = (name.strip().decode("latin-1") for name in value.split(b",") if name.strip())
    return dict(Counter(names))


def timings(value: bytes) -> dict[str, float]:
    """The milliseconds in `Server-Timing`, by name; what cannot be read is left out."""
    found = {}
    for metric in value.decode("latin-1").split(","):
        name, *parameters = metric.split(";")
        for number in filter(None, map(DURATION.fullmatch, parameters)):
            found[name.strip()] = float(number[1])
    return found
