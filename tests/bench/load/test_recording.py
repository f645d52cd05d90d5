"""The file between measuring and judging."""

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from bench.load.level import WARMUP, Level
from bench.load.recording import Recording, RecordingError
from tests.support.recordings import CALM, recorded, sample, stage

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
