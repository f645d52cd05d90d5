"""Samples, stages and recordings made by hand, for tests of what judges them."""

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from bench.load.level import Level
from bench.load.recording import Gauge, Recorder, Recording, Sample, Stage

CALM = Gauge(
    level=1,
    process=0,
    cpu=0.2,
    lag_p99_ms=1.0,
    lag_max_ms=2.0,
    connections=4,
    checked=3,
    check_stride=1,
)


def sample(number: int = 0, latency: float = 0.1, **fields: Any) -> Sample:
    """A good answer to the n-th request, which was due after n tenths of a second."""
    due = number / 10
    good = Sample(
        level=1,
        number=number,
        target="text",
        items=1,
        scheduled=due,
        sent=due,
        first_byte=round(due + latency / 2, 6),
        done=round(due + latency, 6),
        status=200,
        size=100,
    )
    return replace(good, **fields)


def refused(number: int, status: int) -> Sample:
    """An answer that is no success."""
    error = None if status == 429 else f"status {status}"
    return sample(number, status=status, error=error)


def stage(*samples: Sample, level: Level | None = None, gauge: Gauge = CALM) -> Stage:
    """A closed level of four in flight with these samples."""
    return Stage(level or Level(1, concurrency=4, requests=len(samples)), list(samples), [gauge])


def recorded(path: Path, *stages: Stage, partial: bool | None = False, **run: Any) -> Path:
    """A file with these stages; `partial` None leaves out the end."""
    with path.open("wb") as file:
        recorder = Recorder(file)
        recorder.run({"seed": 3, **run})
        for one in stages:
            recorder.level(one.level)
            recorder.samples(b"".join(sample.line() for sample in one.samples))
            recorder.gauges(one.gauges)
        if partial is not None:
            recorder.end(partial)
    return path


def sweep(seed: int = 0, slower: float = 1.0) -> Recording:
    """A run of three closed and three open levels whose latencies grow with the load."""
    rng = Random(seed)
    closed = [Level(i, concurrency=c) for i, c in enumerate((5, 20, 80), 1)]
    opened = [Level(i, rate=r) for i, r in enumerate((50.0, 100.0, 200.0), 4)]
    stages = []
    for level in (*closed, *opened):
        mean = slower * (0.02 + level.number * 0.01)
        latencies = [rng.lognormvariate(0, 0.4) * mean for _ in range(200)]
        stages.append(stage(*(sample(i, s) for i, s in enumerate(latencies)), level=level))
    return Recording({"seed": seed}, stages, partial=False)
