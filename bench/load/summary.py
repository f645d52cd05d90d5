"""Judging: from a recording to the table, and to pass or fail. Reads the file and nothing else.

    python -m bench.load.summary run.jsonl

Latencies are those of good answers. Percentiles are exact: the smallest latency seen that is not
exceeded by that share of the answers. Throughput is good answers over the window from the first
request due to the last answer, so an open loop's throughput falls below its rate when the server
does not keep up. "hits" are items that came from a cache; joined items (waiting for an equal one
under way) are counted apart.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import orjson

from bench.load.level import Level
from bench.load.recording import BUSY, STOPPED, Gauge, Recording, RecordingError, Sample, Stage
from bench.rig.command import described, failing, markdown

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
COLUMNS = (
    "concurrency", "RPS", "items/s", "mean ms", "P50 ms", "P95 ms", "P99 ms", "max ms",
    "errors %", "429 %", "hits %",
)  # fmt: skip
NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Summary:
    """One level in numbers. None stands for what cannot be said."""

    level: str
    concurrency: int
    rate: float  # asked for; 0 in a closed loop
    requests: int
    good: int
    unfinished: int
    window_s: float
    throughput: float
    items_per_s: float
    latency_ms: dict[str, float] | None
    first_byte_ms: dict[str, float] | None
    errors: dict[str, int]
    errors_pct: float
    busy_pct: float
    hits_pct: float | None
    cache: dict[str, int]
    server_ms: dict[str, float]  # means of what Server-Timing said
    megabytes: float
    checked: int
    generator: dict[str, Any]

    @classmethod
    def of(cls, stage: Stage) -> Summary:
        level, samples = stage.level, stage.samples
        good = [one for one in samples if one.good]
        ended = [one for one in samples if one.error != STOPPED]
        errors = _errors(samples)
        states = Counter[str]()
        for one in good:
            states.update(one.cache)
        window = _window(level, ended)
        return cls(
            level=level.name,
            concurrency=level.concurrency,
            rate=level.rate,
            requests=len(samples),
            good=len(good),
            unfinished=len(samples) - len(ended),
            window_s=window,
            throughput=_over(len(good), window),
            items_per_s=_over(sum(one.items for one in good), window),
            latency_ms=spread([one.latency for one in good]),
            first_byte_ms=spread([one.first_byte - one.sent for one in good if one.first_byte]),
            errors=errors,
            errors_pct=_over(100 * sum(errors.values()), len(ended)),
            busy_pct=_over(100 * sum(one.status == BUSY for one in ended), len(ended)),
            hits_pct=_hits(states),
            cache=dict(states.most_common()),
            server_ms=_means([one.timings for one in good]),
            megabytes=sum(one.size for one in good) / 1e6,
            checked=sum(one.checked for one in samples),
            generator=_generator(stage.gauges),
        )

    def row(self) -> list[str]:
        latency = self.latency_ms or {}
        names = ("mean", "p50", "p95", "p99", "max")
        return [
            self.level,
            f"{self.throughput:.1f}",
            f"{self.items_per_s:.1f}",
            *(f"{latency[name]:.1f}" if name in latency else NOTHING for name in names),
            f"{self.errors_pct:.2f}",
            f"{self.busy_pct:.2f}",
            NOTHING if self.hits_pct is None else f"{self.hits_pct:.1f}",
        ]

    def failure(self, allowed_pct: float) -> str | None:
        if self.errors_pct > allowed_pct:
            return f"level {self.level}: {self.errors_pct:.2f} % errors: {_listed(self.errors)}"
        return None if self.good else f"level {self.level}: no good answer"

    @property
    def bound(self) -> bool:
        """The generator, not the server, may have set the pace."""
        return bool(self.generator["bound"])


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the ordered values that `share` percent of them do not exceed."""
    return ordered[max(0, math.ceil(round(share * len(ordered) / 100, 9)) - 1)]


def spread(seconds: Iterable[float]) -> dict[str, float] | None:
    """Mean, percentiles and extremes in milliseconds."""
    ordered = sorted(value * 1e3 for value in seconds)
    if not ordered:
        return None
    named = {f"p{share:g}": percentile(ordered, share) for share in PERCENTILES}
    return {"mean": fmean(ordered), "min": ordered[0], **named, "max": ordered[-1]}


@dataclass(frozen=True, slots=True)
class Report:
    run: dict[str, Any]
    summaries: list[Summary]
    failures: list[str]
    partial: bool

    @classmethod
    def of(cls, recording: Recording, allowed_pct: float | None = None) -> Report:
        allowed = recording.run.get("allow_errors", 0.0) if allowed_pct is None else allowed_pct
        summaries = [Summary.of(stage) for stage in recording.measured if stage.samples]
        failures = [failure for one in summaries if (failure := one.failure(allowed))]
        if recording.warmup and not any(one.good for one in recording.warmup.samples):
            failures.append(
                f"warm-up: no good answer: {_listed(_errors(recording.warmup.samples))}"
            )
        elif recording.partial:
            failures.append("cut off: what is shown is partial")
        elif not summaries:
            failures.append("nothing was measured")
        return cls(recording.run, summaries, failures, recording.partial)

    def lines(self) -> list[str]:
        """Table, remarks, and last the whole run as one JSON object."""
        bound = [one.level for one in self.summaries if one.bound]
        checked = [f"{one.checked} of {one.requests}" for one in self.summaries]
        return [
            markdown([list(COLUMNS), *(one.row() for one in self.summaries)]),
            "",
            f"generator-bound: {'yes, at ' + ', '.join(bound) if bound else 'no'}",
            f"bodies checked: {', '.join(checked) or 'none'}",
            *self.failures,
            orjson.dumps(self.fields()).decode(),
        ]

    def fields(self) -> dict[str, Any]:
        return {
            "passed": not self.failures,
            "partial": self.partial,
            "generator_bound": any(one.bound for one in self.summaries),
            "failures": self.failures,
            "levels": [rounded(asdict(one)) for one in self.summaries],
            "run": self.run,
        }


def _errors(samples: Iterable[Sample]) -> dict[str, int]:
    return dict(Counter(str(one.error) for one in samples if one.failed).most_common())


def _listed(errors: dict[str, int]) -> str:
    return ", ".join(f"{many} × {name}" for name, many in errors.items())


def _window(level: Level, samples: Sequence[Sample]) -> float:
    """From the first request due to the last answer; at least an open loop's whole schedule."""
    if not samples:
        return 0.0
    spanned = max(one.done for one in samples) - min(min(s.scheduled, s.sent) for s in samples)
    if not level.rate:
        return spanned
    return max(spanned, min(level.duration or math.inf, len(samples) / level.rate))


def rounded(value: Any) -> Any:
    """Numbers as exact as they were measured, and no longer."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


def _over(value: float, by: float) -> float:
    return value / by if by else 0.0


def _hits(states: dict[str, int]) -> float | None:
    hits = sum(many for name, many in states.items() if name.startswith("hit"))
    return 100 * hits / sum(states.values()) if states else None


def _means(timings: Sequence[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for one in timings for name in one)
    found = {name: [one[name] for one in timings if name in one] for name in names}
    return {name: fmean(values) for name, values in found.items()}


def _generator(gauges: Sequence[Gauge]) -> dict[str, Any]:
    return {
        "processes": len(gauges),
        "cpu_max": max((one.cpu for one in gauges), default=0.0),
        "lag_p99_ms": max((one.lag_p99_ms for one in gauges), default=0.0),
        "lag_max_ms": max((one.lag_max_ms for one in gauges), default=0.0),
        "connections": sum(one.connections for one in gauges),
        "check_stride": max((one.check_stride for one in gauges), default=1),
        "bound": any(one.bound for one in gauges),
    }


@failing(OSError, RecordingError)
def main(arguments: Sequence[str] | None = None) -> int:
    parser = described("bench.load.summary", __doc__)
    parser.add_argument("file", type=Path, help="a recording of bench.load")
    parser.add_argument("--allow-errors", type=float, metavar="PCT", help="default: as in the run")
    options = parser.parse_args(arguments)
    report = Report.of(Recording.read(options.file), options.allow_errors)
    print("\n".join(report.lines()))
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
