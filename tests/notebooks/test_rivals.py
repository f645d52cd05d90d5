"""Systems side by side, out of the files of comparisons."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.compare.point import Point
from bench.compare.result import Remark, Result
from bench.load.level import Level
from bench.load.summary import Summary
from bench.rig.result_file import save
from notebooks.figures.rivals import Rivals
from tests.support.recordings import sample, stage


def summary(concurrency: int, latency: float = 0.1) -> Summary:
    level = Level(1, concurrency=concurrency, requests=10)
    return Summary.of(stage(*(sample(n, latency) for n in range(10)), level=level))


def point(system: str, level: int, number: int = 0, latency: float = 0.1) -> Point:
    return Point("base-text", "text", system, number, 1, summary(level, latency))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two systems at two levels, and a result of something else."""
    points = [point(name, level) for name in ("siglit", "flask-dev") for level in (50, 100)]
    points.append(replace(point("bare", 0), summary=replace(summary(0), level="batch 8")))
    result = Result({}, points, wrong=[Remark("base-text", "text", "flask-dev", "wrong: cosine")])
    save("compare", result.fields(), tmp_path, measured_on="cpu")
    save("other", {"rows": []}, tmp_path, measured_on="cpu")
    return tmp_path


def test_the_table_has_every_level_of_every_system(folder: Path) -> None:
    """Marked where its vectors are wrong, as in the curves; the bare towers are no system."""
    rivals = Rivals("base-text", "text", folder)
    throughput, latency = rivals.curves()
    named = ["siglit", "flask-dev (wrong vectors)"]
    assert throughput.axes[0].get_legend_handles_labels()[1] == named
    assert len(latency.axes[0].get_lines()) == 2
    assert rivals
    rows = [[name, level] for name in named for level in ("50", "100")]
    assert [row[:2] for row in rivals.table().rows] == rows
    assert rivals.remarks() == ["flask-dev: wrong: cosine"]
    assert "measured on" in repr(rivals)


def test_of_several_rounds_the_one_of_median_throughput_is_shown(tmp_path: Path) -> None:
    """A row is one real run, not a mixture."""
    latencies = (0.1, 5.0, 0.5)
    points = [point("siglit", 50, n, latency) for n, latency in enumerate(latencies)]
    save("compare", Result({}, points).fields(), tmp_path, measured_on="cpu")
    (levels,) = Rivals("base-text", "text", tmp_path).systems().values()
    assert levels[0].latency_ms is not None
    assert levels[0].latency_ms["mean"] == pytest.approx(500)


def test_a_scenario_that_was_never_measured_says_how_to(tmp_path: Path) -> None:
    """And has no curves and no rows."""
    rivals = Rivals("base-text", "text", tmp_path)
    assert not rivals
    assert rivals.curves() == []
    assert rivals.remarks() == []
    assert "python -m bench.compare base-text" in repr(rivals)


def test_of_two_files_of_one_day_the_fuller_one_is_shown(folder: Path) -> None:
    """A look at one system does not hide the comparison of all."""
    save("look", Result({}, [point("nginx", 50)]).fields(), folder, measured_on="cpu")
    assert {*Rivals("base-text", "text", folder).systems()} == {
        "siglit", "flask-dev (wrong vectors)",
    }  # fmt: skip
