"""Pictures: what is on their axes, and that they are there."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from bench.load.level import Level
from bench.load.plot import LOST, Curve, Plot, main, named
from bench.load.recording import Recording
from tests.support.recordings import recorded, refused, sample, stage, sweep

CURVES = [Curve("siglit", sweep(1)), Curve("flask", sweep(2, slower=8.0))]
DRAWN = pytest.mark.parametrize("name", ["throughput", "latency", "offered", "cdf"])


def drawn(name: str, curves: list[Curve] | None = None) -> Figure:
    """One of the pictures."""
    figure: Figure = getattr(Plot(curves), name)() if curves else usual(name)
    return figure


@cache
def usual(name: str) -> Figure:
    """Of the usual recordings; drawn once for all tests that only look at it."""
    return drawn(name, CURVES)


def labels(figure: Figure) -> list[str]:
    """What its legend says."""
    return figure.axes[0].get_legend_handles_labels()[1]


@DRAWN
def test_the_axes_say_what_they_show_and_in_what_unit(name: str) -> None:
    """Nobody has to guess."""
    axes = drawn(name).axes[0]
    assert axes.get_title()
    assert axes.get_xlabel()
    assert axes.get_ylabel()
    units = ("ms", "items/s", "requests/s", "%")
    assert any(f"({unit})" in axes.get_xlabel() + axes.get_ylabel() for unit in units)


@DRAWN
def test_every_recording_is_in_the_legend(name: str) -> None:
    """By the name it was given."""
    for curve in CURVES:
        assert any(label.startswith(curve.name) for label in labels(drawn(name)))


@DRAWN
def test_the_background_is_light(name: str) -> None:
    """It is printed and put into pages."""
    assert drawn(name).get_facecolor() == (1.0, 1.0, 1.0, 1.0)


@DRAWN
@pytest.mark.parametrize("curves", [CURVES, CURVES[::-1], CURVES[:1]], ids=["two", "turned", "one"])
def test_every_point_lies_within_the_axes(name: str, curves: list[Curve]) -> None:
    """Whatever was drawn first."""
    axes = drawn(name, curves).axes[0]
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    for line in axes.get_lines():
        x, y = np.asarray(line.get_xydata(), float).T
        assert left <= x.min() <= x.max() <= right
        assert low <= y.min() <= y.max() <= high


@pytest.mark.parametrize("first", [0, 1])
def test_closed_and_open_recordings_can_be_drawn_together(first: int) -> None:
    """Each picture names only those it has something of, and shows all of them."""
    stages = sweep().stages
    curves = [
        Curve("closed", Recording({}, stages[:3], False)),
        Curve("open", Recording({}, stages[3:], False)),
    ]
    if first:
        curves.reverse()
    for name, shown in (("throughput", "closed"), ("latency", "closed"), ("offered", "open")):
        figure = drawn(name, curves)
        assert {label.partition(":")[0] for label in labels(figure)} == {shown}
        _, high = figure.axes[0].get_ylim()
        lines = figure.axes[0].get_lines()
        assert max(np.asarray(line.get_ydata(), float).max() for line in lines) <= high


def test_throughput_is_drawn_over_the_levels_in_order() -> None:
    """A line for each recording, a point for each closed level."""
    lines = drawn("throughput").axes[0].get_lines()
    assert [list(map(float, np.asarray(line.get_xdata()))) for line in lines] == [[5, 20, 80]] * 2


def test_ticks_stand_where_something_was_measured() -> None:
    """And nowhere else."""
    axes = drawn("throughput").axes[0]
    assert [one.get_text() for one in axes.get_xticklabels()] == ["5", "20", "80"]
    assert len(axes.get_xticklabels(minor=True)) == 0


@pytest.mark.parametrize(("name", "x"), [("latency", [5, 20, 80]), ("offered", [50, 100, 200])])
def test_latency_is_drawn_by_percentile(name: str, x: list[float]) -> None:
    """Three lines for each recording; P50 lies below P95, P95 below P99."""
    axes = drawn(name).axes[0]
    assert labels(drawn(name))[:3] == ["siglit: P50", "siglit: P95", "siglit: P99"]
    middle, high, highest = (np.asarray(line.get_ydata(), float) for line in axes.get_lines()[:3])
    assert list(np.asarray(axes.get_lines()[0].get_xdata(), float)) == x
    assert (middle <= high).all()
    assert (high <= highest).all()


def test_a_cdf_rises_to_all_good_answers() -> None:
    """From the quickest to the slowest, a line for each level."""
    lines = drawn("cdf").axes[0].get_lines()
    assert len(lines) == 12
    for line in lines:
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        assert (np.diff(x) >= 0).all()
        assert y[-1] == 100
    assert "siglit: 50/s" in labels(drawn("cdf"))


@pytest.mark.parametrize("name", ["throughput", "latency"])
def test_a_level_that_lost_requests_is_hollow_and_the_legend_says_so(name: str) -> None:
    """Half the requests of a level are not a quicker level."""
    levels = [Level(1, concurrency=5), Level(2, concurrency=50)]
    whole, half = (
        stage(sample(0), level=levels[0]),
        stage(sample(0), refused(1, 504), level=levels[1]),
    )
    figure = drawn(name, [Curve("a", Recording({}, [whole, half], False))])
    hollow = [one for one in figure.axes[0].get_lines() if one.get_markerfacecolor() == "white"]
    assert {tuple(np.asarray(one.get_xdata())) for one in hollow} == {(50,), ()}
    assert labels(figure)[-1] == LOST
    assert LOST not in labels(usual(name))


def test_levels_without_a_good_answer_do_no_harm() -> None:
    """They have no latency to draw."""
    levels = [Level(1, concurrency=5), Level(2, concurrency=50)]
    stages = [stage(sample(0), level=levels[0]), stage(refused(0, 503), level=levels[1])]
    curve = Curve("a", Recording({}, stages, False))
    latency = drawn("latency", [curve]).axes[0].get_lines()
    assert [len(np.asarray(line.get_xdata())) for line in latency] == [1, 1, 1]
    drawn("cdf", [curve]).canvas.draw()


def test_a_run_with_nothing_good_at_all_can_be_drawn() -> None:
    """An empty frame, not a traceback."""
    curve = Curve("a", Recording({}, [stage(refused(0, 503))], False))
    for name in ("throughput", "latency", "cdf"):
        drawn(name, [curve]).canvas.draw()


@pytest.mark.parametrize(
    ("level", "files"),
    [
        (Level(1, concurrency=5), ["cdf.png", "latency.png", "throughput.png"]),
        (Level(1, rate=5.0), ["cdf.png", "offered.png"]),
    ],
)
def test_only_pictures_with_data_are_drawn(tmp_path: Path, level: Level, files: list[str]) -> None:
    """An open loop says nothing of concurrency, a closed one nothing of rates."""
    path = recorded(tmp_path / "run.jsonl", stage(sample(0), sample(1), level=level))
    assert main([str(path), "--out", str(tmp_path / "to")]) == 0
    assert sorted(one.name for one in (tmp_path / "to").iterdir()) == files


def test_pictures_are_pngs_of_a_readable_size(tmp_path: Path) -> None:
    """Wide enough to read, and mostly white."""
    paths = Plot(CURVES).save(tmp_path / "deep" / "er")
    assert [path.stem for path in paths] == ["throughput", "latency", "offered", "cdf"]
    for path in paths:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert picture.width >= 800
            assert np.asarray(picture.convert("L")).mean() > 230


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("run.jsonl", ("run", Path("run.jsonl"))),
        ("a/b/run.jsonl", ("run", Path("a/b/run.jsonl"))),
        ("flask=a/run.jsonl", ("flask", Path("a/run.jsonl"))),
    ],
)
def test_a_file_is_called_by_its_stem_or_as_asked(text: str, found: tuple[str, Path]) -> None:
    """Runs of the same name can be told apart."""
    assert named(text) == found


def test_a_file_that_is_no_recording_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a sentence."""
    (tmp_path / "a.jsonl").write_text("no recording\n")
    assert main([str(tmp_path / "a.jsonl"), "--out", str(tmp_path)]) == 2
    assert "line 1" in capsys.readouterr().err
    assert main([str(tmp_path / "missing.jsonl"), "--out", str(tmp_path)]) == 2
