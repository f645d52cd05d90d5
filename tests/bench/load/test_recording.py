"""The file between measuring and judging."""

from pathlib import Path

import orjson
import pytest

from bench.load.level import WARMUP, Level
from bench.load.recording import Gauge, Recording, RecordingError
from tests.support.recordings import CALM, recorded, sample, stage

WARM = stage(sample(level=0), level=Level(WARMUP, concurrency=2, requests=1))


def test_a_recording_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Levels, samples and gauges in their places."""
    stages = [stage(sample(0), sample(1)), stage(sample(2), level=Level(2, rate=5.0, duration=2.0))]
    found = Recording.read(recorded(tmp_path / "a.jsonl", *stages, target="text"))
    assert found.stages == stages
    assert found.run == {"format": 1, "seed": 3, "target": "text"}
    assert not found.partial


def test_every_line_is_json_and_says_what_it_is(tmp_path: Path) -> None:
    """Other programs can read it too."""
    path = recorded(tmp_path / "a.jsonl", WARM, stage(sample(0)))
    names = [orjson.loads(line)["record"] for line in path.read_bytes().splitlines()]
    level = ["level", "sample", "generator"]
    assert names == ["run", *level, *level, "end"]


def test_the_warm_up_is_recorded_and_not_measured(tmp_path: Path) -> None:
    """It has a place of its own."""
    found = Recording.read(recorded(tmp_path / "a.jsonl", WARM, stage(sample(0))))
    assert found.warmup == WARM
    assert [one.level.number for one in found.measured] == [1]


def test_a_run_without_a_warm_up_has_none(tmp_path: Path) -> None:
    """It may be left out."""
    assert Recording.read(recorded(tmp_path / "a.jsonl", stage(sample(0)))).warmup is None


def test_a_file_without_an_end_is_partial(tmp_path: Path) -> None:
    """Its run died; what it had measured can still be read."""
    found = Recording.read(recorded(tmp_path / "a.jsonl", stage(sample(0)), partial=None))
    assert found.partial
    assert len(found.measured[0].samples) == 1


def test_a_run_that_was_cut_off_says_so(tmp_path: Path) -> None:
    """By Ctrl-C."""
    assert Recording.read(recorded(tmp_path / "a.jsonl", partial=True)).partial


@pytest.mark.parametrize(
    "line",
    [
        b"no json",
        b"[]",
        b"{}",
        b'{"record":"other"}',
        b'{"record":"sample","level":1}',
        b'{"record":"level","colour":"red"}',
        b'{"record":"end"}',
        b'{"record":"sample"',
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: bytes) -> None:
    """A file that is silently half read would be judged wrong."""
    path = recorded(tmp_path / "a.jsonl", stage(sample(0)), partial=None)
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(RecordingError, match=r"a\.jsonl: line 5 is no record"):
        Recording.read(path)


def test_a_sample_before_any_level_is_no_record(tmp_path: Path) -> None:
    """It would belong nowhere."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(sample().line())
    with pytest.raises(RecordingError, match="line 1"):
        Recording.read(path)


def test_an_empty_file_is_no_recording(tmp_path: Path) -> None:
    """It says nothing about any run."""
    path = tmp_path / "a.jsonl"
    path.touch()
    with pytest.raises(RecordingError, match="no recording"):
        Recording.read(path)


@pytest.mark.parametrize(
    ("cpu", "lag", "bound"), [(0.2, 1.0, False), (0.81, 1.0, True), (0.2, 10.1, True),
                              (0.8, 10.0, False)]
)  # fmt: skip
def test_a_generator_without_time_to_spare_is_bound(cpu: float, lag: float, bound: bool) -> None:
    """More than 80 % of a core, or a loop that comes more than 10 ms late."""
    fields = {name: getattr(CALM, name) for name in Gauge.__slots__}
    assert Gauge(**{**fields, "cpu": cpu, "lag_p99_ms": lag}).bound is bound
