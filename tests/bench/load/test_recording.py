"""The file between measuring and judging."""

import math
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as some

from bench.load.level import WARMUP, Level
from bench.load.recording import STOPPED, Recording, RecordingError, Sample, states, timings
from tests.support.recordings import CALM, recorded, refused, sample, stage

WARM = stage(sample(level=0), level=Level(WARMUP, concurrency=2, requests=1))


def test_a_recording_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Levels, samples and gauges in their places; no warm-up where there was none."""
    stages = [stage(sample(0), sample(1)), stage(sample(2), level=Level(2, rate=5.0, duration=2.0))]
    found = Recording.read(recorded(tmp_path / "a.jsonl", *stages, target="text"))
    assert found.stages == found.measured == stages
    assert found.run == {"format": 1, "seed": 3, "target": "text"}
    assert found.warmup is None


def test_the_warm_up_is_recorded_and_not_measured(tmp_path: Path) -> None:
    """Every line is JSON and says what it is, so that other programs can read it too."""
    path = recorded(tmp_path / "a.jsonl", WARM, stage(sample(0)))
    names = [orjson.loads(line)["record"] for line in path.read_bytes().splitlines()]
    level = ["level", "sample", "generator"]
    assert names == ["run", *level, *level, "end"]
    found = Recording.read(path)
    assert found.warmup == WARM
    assert [one.level.number for one in found.measured] == [1]


@pytest.mark.parametrize(("end", "partial"), [(False, False), (True, True), (None, True)])
def test_a_run_that_was_cut_off_or_died_is_partial(
    tmp_path: Path, end: bool | None, partial: bool
) -> None:
    """What it had measured can still be read."""
    found = Recording.read(recorded(tmp_path / "a.jsonl", stage(sample(0)), partial=end))
    assert found.partial is partial
    assert len(found.measured[0].samples) == 1


LINES = (
    b"no json", b"[]", b"{}", b'{"record":"other"}', b'{"record":"sample","level":1}',
    b'{"record":"level","colour":"red"}', b'{"record":"end"}', b'{"record":"sample"',
)  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: bytes) -> None:
    """A file that is silently half read would be judged wrong."""
    path = recorded(tmp_path / "a.jsonl", stage(sample(0)), partial=None)
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(RecordingError, match=r"a\.jsonl: line 5 is no record"):
        Recording.read(path)


@pytest.mark.parametrize(
    ("cpu", "lag", "bound"),
    [(0.2, 1.0, False), (0.81, 1.0, True), (0.2, 10.1, True), (0.8, 10.0, False)],
)
def test_a_generator_without_time_to_spare_is_bound(cpu: float, lag: float, bound: bool) -> None:
    """More than 80 % of a core, or a loop that comes more than 10 ms late."""
    assert replace(CALM, cpu=cpu, lag_p99_ms=lag).bound is bound


@pytest.mark.parametrize(
    ("scheduled", "sent", "latency"),
    [
        (1.0, 3.0, 2.5),  # waiting for a connection is part of it: no coordinated omission
        (3.0005, 3.0, 0.5),  # the half millisecond is not made a gift of
    ],
)
def test_latency_counts_from_when_it_was_due(scheduled: float, sent: float, latency: float) -> None:
    """Or from when it was sent, where that was sooner."""
    assert sample(scheduled=scheduled, sent=sent, done=3.5).latency == pytest.approx(latency)


@pytest.mark.parametrize(
    ("one", "good", "failed"),
    [
        (sample(), True, False),
        (refused(0, 429), False, False),
        (refused(0, 500), False, True),
        (sample(status=0, error="timeout"), False, True),
        (sample(error="not-unit"), False, True),
        (sample(status=0, error=STOPPED), False, False),
    ],
    ids=["200", "429", "500", "timeout", "wrong body", "stopped"],
)
def test_what_is_good_and_what_has_failed(one: Sample, good: bool, failed: bool) -> None:
    """A 429 and what Ctrl-C cut off are neither."""
    assert (one.good, one.failed) == (good, failed)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"", {}),
        (b"miss", {"miss": 1}),
        (b"hit-l1,miss,hit-l1", {"hit-l1": 2, "miss": 1}),
        (b"hit-l2, join", {"hit-l2": 1, "join": 1}),
        (b"HIT from somewhere,", {"HIT from somewhere": 1}),
    ],
)
def test_cache_states_are_counted(value: bytes, found: dict[str, int]) -> None:
    """One for each item."""
    assert states(value) == found


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"", {}),
        (b"cache;dur=0.105, infer;dur=12", {"cache": 0.105, "infer": 12.0}),
        (b'db;desc="a b";dur=53.2', {"db": 53.2}),
        (b"miss, total;dur=1", {"total": 1.0}),
        (b"a;dur=x, b;dur=, c;dur, d;dur=-1", {}),
        (b" spaced ; dur = 2.5 ", {"spaced": 2.5}),
    ],
)
def test_server_timings_are_read(value: bytes, found: dict[str, float]) -> None:
    """What cannot be read is left out."""
    assert timings(value) == found


@given(value=some.binary(max_size=60))
def test_no_header_makes_reading_fail(value: bytes) -> None:
    """A server may write there what it likes."""
    assert all(many > 0 for many in states(value).values())
    assert all(math.isfinite(number) for number in timings(value).values())
