"""Charts of systems side by side, and pictures of result files."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from bench.compare.point import Point
from bench.compare.result import Result
from bench.load.level import Level
from bench.load.summary import Summary
from bench.rig.result_file import save
from notebooks.figures.chart import Chart
from notebooks.figures.plot import LOST, Systems, latency, main, offered, throughput
from tests.support.recordings import refused, sample, stage, sweep


def levels(seed: int, slower: float = 1.0) -> list[Summary]:
    return [Summary.of(one) for one in sweep(seed, slower).measured]


SYSTEMS: Systems = {"siglit": levels(1), "flask": levels(2, slower=8.0)}
DRAWN = pytest.mark.parametrize("draw", [throughput, latency, offered])
Draw = Callable[[Systems], Chart]


def labels(chart: Chart) -> list[str]:
    """What its legend says."""
    return chart.axes[0].get_legend_handles_labels()[1]


@DRAWN
@pytest.mark.parametrize("names", [["siglit", "flask"], ["flask", "siglit"], ["siglit"]])
def test_every_system_is_in_the_legend_and_within_the_axes(
    draw: Draw, names: Sequence[str]
) -> None:
    """Whatever was drawn first, or nothing good at all; the axes say what and in what unit."""
    draw({"a": [Summary.of(stage(refused(0, 503)))]}).canvas.draw()
    chart = draw({name: SYSTEMS[name] for name in names})
    axes = chart.axes[0]
    assert list(dict.fromkeys(label.partition(":")[0] for label in labels(chart))) == names
    assert axes.get_title()
    assert any(f"({unit})" in axes.get_ylabel() for unit in ("ms", "items/s"))
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    for line in axes.get_lines():
        x, y = np.asarray(line.get_xydata(), float).T
        assert left <= x.min() <= x.max() <= right
        assert low <= y.min() <= y.max() <= high


@pytest.mark.parametrize(("draw", "x"), [(latency, [5, 20, 80]), (offered, [50, 100, 200])])
def test_latency_is_drawn_by_percentile(draw: Draw, x: list[float]) -> None:
    """Three lines for each system; ticks stand where something was measured."""
    ticks = throughput(SYSTEMS).axes[0]
    assert [one.get_text() for one in ticks.get_xticklabels()] == ["5", "20", "80"]
    assert len(ticks.get_xticklabels(minor=True)) == 0
    chart = draw(SYSTEMS)
    assert labels(chart)[:3] == ["siglit: P50", "siglit: P95", "siglit: P99"]
    lines = chart.axes[0].get_lines()[:3]
    middle, high, highest = (np.asarray(line.get_ydata(), float) for line in lines)
    assert list(np.asarray(lines[0].get_xdata(), float)) == x
    assert (middle <= high).all()
    assert (high <= highest).all()


@pytest.mark.parametrize("draw", [throughput, latency])
def test_a_level_that_lost_requests_is_hollow_and_the_legend_says_so(draw: Draw) -> None:
    """Half the requests of a level are not a quicker level."""
    whole = Summary.of(stage(sample(0), level=Level(1, concurrency=5)))
    half = Summary.of(stage(sample(0), refused(1, 504), level=Level(2, concurrency=50)))
    chart = draw({"a": [whole, half]})
    hollow = [one for one in chart.axes[0].get_lines() if one.get_markerfacecolor() == "white"]
    assert {tuple(np.asarray(one.get_xdata())) for one in hollow} == {(50,), ()}
    assert labels(chart)[-1] == LOST
    assert LOST not in labels(draw(SYSTEMS))


def test_a_result_file_becomes_pictures_beside_it(tmp_path: Path) -> None:
    """Of each part that has more than one level; the bare towers have none."""
    points = [Point("base-text", "text, 90 %", "siglit", 0, 1, one) for one in levels(1)]
    path = save("made", Result({}, points).fields(), tmp_path, measured_on="cpu")
    assert main([str(path)]) == 0
    kinds = ("latency", "offered", "throughput")
    assert sorted(one.name for one in tmp_path.glob("*.png")) == [
        f"made-cpu-base-text-text-90-{kind}.png" for kind in kinds
    ]
    assert all(one.stat().st_size <= 150_000 for one in tmp_path.glob("*.png"))
