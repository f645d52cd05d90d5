"""What notebooks show of result files and of measured levels: tables, charts, sentences."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.compare.point import Point
from bench.compare.result import Remark, Result
from bench.load.level import Level
from bench.load.summary import Summary
from bench.rig.result_file import save
from notebooks.figures import speed
from notebooks.figures.chart import Chart
from notebooks.figures.kept import Kept
from notebooks.figures.latency import REST, flooded, in_flight, level_table, little, parts
from notebooks.figures.plot import LOST, Systems, latency, main, offered, throughput
from notebooks.figures.rivals import Rivals
from tests.support.recordings import refused, sample, stage, sweep

Draw = Callable[[Systems], Chart]
TIMES = {"cache": 1.0, "queue": 20.0, "decode": 2.0, "infer": 50.0}
MADE = Summary.of(stage(*(sample(n, 0.1, timings=TIMES) for n in range(20))))
NOBODY = Summary.of(stage(refused(0, 500), level=Level(1, concurrency=4, requests=1)))


def levels(seed: int, slower: float = 1.0) -> list[Summary]:
    return [Summary.of(one) for one in sweep(seed, slower).measured]


def point(system: str, level: int, number: int = 0, latency: float = 0.1) -> Point:
    at = Level(1, concurrency=level, requests=10)
    summary = Summary.of(stage(*(sample(n, latency) for n in range(10)), level=at))
    return Point("base-text", "text", system, number, 1, summary)


def labels(chart: Chart) -> list[str]:
    return chart.axes[0].get_legend_handles_labels()[1]


# -- files -----------------------------------------------------------------------------------------


def test_a_result_is_shown_and_says_when_and_where_it_was_measured(tmp_path: Path) -> None:
    """A figure without its machine is none; a missing result says how to make it, and a notebook
    runs on, on a fresh checkout too."""
    path = save("thing", {"rows": [1, 2]}, tmp_path, measured_on="cpu")
    kept = Kept.of(path.stem, "python -m bench.thing", tmp_path)
    assert kept.show(lambda fields: sum(fields["rows"])) == 3
    assert "thing-cpu.json: measured on " in repr(kept)
    missing = Kept.of("other-cpu", "python -m bench.other", tmp_path)
    assert "run `python -m bench.other` first" in repr(missing)
    assert missing.show(len) is None


# -- parts of a latency ----------------------------------------------------------------------------


def test_the_parts_are_what_the_server_told_and_the_rest() -> None:
    """Together they are the latency that the client saw; no answer has none."""
    assert set(parts(NOBODY).values()) == {0.0}
    assert in_flight(NOBODY) == 0
    found = parts(MADE)
    assert (found["queue"], found[REST]) == pytest.approx((20, 100 - 73))
    assert MADE.latency_ms is not None
    assert sum(found.values()) == pytest.approx(MADE.latency_ms["mean"])


def test_single_items_without_a_flood_and_beside_each() -> None:
    """Medians of the rounds; those without a flood are of all rounds."""
    rounds = [
        {"flood": flood, "quiet_p99_ms": 10 * n, "mixed_p99_ms": slower * n}
        for n in (1, 2, 3)
        for flood, slower in (("bulk", 15), ("interactive", 90))
    ]
    assert [*flooded({"rounds": rounds}).values()] == [20, 30, 180]


def test_littles_law_finds_how_many_were_in_flight() -> None:
    """A request each tenth of a second that takes a tenth: one at a time, where four could be."""
    assert in_flight(MADE) == pytest.approx(1.0, rel=0.06)
    (row,) = little([MADE]).rows
    assert row[0] == "4"
    assert row[-1] in {"24%", "25%", "26%"}


def test_the_table_of_levels_has_a_row_for_each_system_and_level() -> None:
    """Concurrency against throughput, mean, P95, P99 and errors."""
    table = level_table({"one": [MADE], "two": [MADE, NOBODY]})
    assert [row[:2] for row in table.rows] == [["one", "4"], ["two", "4"], ["two", "4"]]
    assert table.rows[0][3:] == ["100.0", "100.0", "100.0", "0.00"]
    assert table.rows[2][3:] == ["–", "–", "–", "100.00"]
    assert "P99 ms" in table._repr_markdown_()


# -- systems side by side --------------------------------------------------------------------------

SYSTEMS: Systems = {"siglit": levels(1), "flask": levels(2, slower=8.0)}


@pytest.mark.parametrize("draw", [throughput, latency, offered])
@pytest.mark.parametrize("names", [["siglit", "flask"], ["flask", "siglit"], ["siglit"]])
def test_every_system_is_in_the_legend_and_within_the_axes(draw: Draw, names: list[str]) -> None:
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
    assert np.asarray(lines[0].get_xdata(), float).tolist() == x
    heights = np.array([np.asarray(line.get_ydata(), float) for line in lines])
    assert (np.diff(heights, axis=0) >= 0).all()


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
    sizes = {one.name: one.stat().st_size for one in tmp_path.glob("*.png")}
    kinds = ("latency", "offered", "throughput")
    assert sorted(sizes) == [f"made-cpu-base-text-text-90-{kind}.png" for kind in kinds]
    assert max(sizes.values()) <= 150_000


RIVALS = ["siglit", "flask-dev (wrong vectors)"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two systems at two levels, and a result of something else."""
    points = [point(name, level) for name in ("siglit", "flask-dev") for level in (50, 100)]
    bare = point("bare", 0)
    points.append(replace(bare, summary=replace(bare.summary, level="batch 8")))
    result = Result({}, points, wrong=[Remark("base-text", "text", "flask-dev", "wrong: cosine")])
    save("compare", result.fields(), tmp_path, measured_on="cpu")
    save("other", {"rows": []}, tmp_path, measured_on="cpu")
    return tmp_path


def test_the_table_has_every_level_of_every_system(folder: Path) -> None:
    """Marked where its vectors are wrong, as in the curves; the bare towers are no system. A look
    at one system does not hide the comparison of all on the same day."""
    save("look", Result({}, [point("nginx", 50)]).fields(), folder, measured_on="cpu")
    rivals = Rivals("base-text", "text", folder)
    above, below = rivals.curves()
    assert labels(above) == RIVALS
    assert len(below.axes[0].get_lines()) == 2
    assert rivals
    rows = [[name, level] for name in RIVALS for level in ("50", "100")]
    assert [row[:2] for row in rivals.table().rows] == rows
    assert rivals.remarks() == ["flask-dev: wrong: cosine"]
    assert "measured on" in repr(rivals)


def test_of_several_rounds_the_one_of_median_throughput_is_shown(tmp_path: Path) -> None:
    """A row is one real run, not a mixture."""
    points = [point("siglit", 50, n, latency) for n, latency in enumerate((0.1, 5.0, 0.5))]
    save("compare", Result({}, points).fields(), tmp_path, measured_on="cpu")
    (levels,) = Rivals("base-text", "text", tmp_path).systems().values()
    assert levels[0].latency_ms is not None
    assert levels[0].latency_ms["mean"] == pytest.approx(500)


def test_a_scenario_that_was_never_measured_says_how_to(tmp_path: Path) -> None:
    """And has no curves and no rows."""
    rivals = Rivals("base-text", "text", tmp_path)
    assert (bool(rivals), rivals.curves(), rivals.remarks()) == (False, [], [])
    assert "python -m bench.compare base-text" in repr(rivals)


# -- precisions ------------------------------------------------------------------------------------

BOTH = {"text_to_image": {"recall@1": 0.95}, "image_to_text": {"recall@1": 0.95}}
LESS = {**BOTH, "text_to_image": {"recall@1": 0.5}}


def row(precision: str, ratio: float, found: Any = BOTH) -> dict[str, Any]:
    """As `bench.offline.precision` keeps it, with what the gate gives."""
    return {
        "tower": "text", "precision": precision, "compiled": False, "resident_mb": 500,
        "batches": {n: {"items_per_s": {"median": ratio * 10}, "ratio": ratio} for n in ("1", "8")},
        "load_s": 1.5, "cosine": {"worst": 0.999},
        "demo_quality": found and {
            "pairs": 800, "cosine": {}, "rank_correlation": 1.0, "zero_shot": None,
            "recall": {"exact": BOTH, "found": found}, "score_change": {},
        },
    }  # fmt: skip


FIELDS: dict[str, Any] = {
    "model": "base",
    "baseline": "AutoModel",
    "rows": [
        *(row("AutoModel", 1.0, None), row("float32", 1.1), row("int8", 2.5)),
        row("float16", 9.0, LESS),
        {"tower": "text", "precision": "float8", "compiled": False, "refused": "no such device"},
    ],
}


def test_the_fastest_of_those_that_pass_the_gate_is_chosen() -> None:
    """Speed that loses recall is no speed, and the baseline is not a choice."""
    said = speed.choice(FIELDS)
    assert said == "The fastest that passes the gate: text: int8, 2.5 × the baseline."


def test_the_table_keeps_what_the_machine_refused() -> None:
    """With no figures; and in the charts of ratio and memory it has no bar."""
    rows = speed.table(FIELDS).rows
    assert [one[1] for one in rows] == ["AutoModel", "float32", "int8", "float16", "float8"]
    assert rows[2][2:] == ["25.0", "25.0", "2.50", "0.99900", "500", "2"]
    assert rows[-1][-1] == "not on this machine"
    for chart, unit in ((speed.speed(FIELDS), "(ratio)"), (speed.memory(FIELDS), "(MB)")):
        bars = [one.get_text() for one in chart.axes[0].get_xticklabels()]
        assert bars == ["AutoModel", "float32", "int8", "float16"]
        assert unit in chart.axes[0].get_ylabel()
