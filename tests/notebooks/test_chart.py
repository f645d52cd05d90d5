"""Charts and galleries: what stands on them, and what a notebook shows of them."""

import io

import numpy as np
import pytest
from PIL import Image

from notebooks.figures import chart as charts
from notebooks.figures.chart import Chart
from notebooks.figures.gallery import principal, rows

LINES = {"one": ([1.0, 10.0], [5.0, 6.0]), "two": ([1.0, 10.0], [7.0, 9.0])}
NESTED = {"a": {"x": 1.0, "y": 2.0}, "b": {"x": 3.0, "y": 4.0}}
ALL = {
    "curves": charts.curves(LINES, "Title", "across (s)", "up (ms)"),
    "groups": charts.groups(NESTED, "Title", "across", "up (ms)"),
    "stack": charts.stack(NESTED, "Title", "across", "up (ms)"),
    "histogram": charts.histogram({"one": [1.0, 2.0, 2.0]}, "Title", "value (ms)"),
    "reliability": charts.reliability({"one": ([0.1, 0.8], [0.2, 0.7], [0.9, 0.1])}, "Title"),
    "bars": charts.bars({"one": 1.0, "two": 2.0}, "Title", "value (ms)"),
    "heat": charts.heat(np.eye(2), ["a", "b"], ["c", "d"], "Title", "cosine", ("row", "column")),
}

RED = Image.new("RGB", (40, 20), (255, 0, 0))
BLUE = Image.new("RGB", (20, 40), (0, 0, 255))

every = pytest.mark.parametrize("chart", ALL.values(), ids=ALL.keys())


def names(chart: Chart) -> list[str]:
    return chart.axes[0].get_legend_handles_labels()[1]


@every
def test_a_chart_has_a_title_and_names_its_axes(chart: Chart) -> None:
    """Nobody has to guess; a long title is broken, or it would run into the legend."""
    assert "\n" in charts.canvas("word " * 30, "x", "y").axes[0].get_title()
    axes = chart.axes[0]
    assert axes.get_title() == "Title"
    assert axes.get_xlabel()
    assert axes.get_ylabel() or axes.get_yticklabels()


@every
def test_a_notebook_shows_a_small_light_png_and_nothing_is_cut_off(chart: Chart) -> None:
    """With no magic and no pyplot; the frame of the picture is empty all round."""
    data = chart._repr_png_()
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    frame = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert frame.min() == 255
    assert pixels.shape[1] > 400
    assert len(data) < 60_000


def test_curves_draw_each_series_in_a_colour_of_its_own() -> None:
    """The legend tells them apart, spans are named, and a cut axis has to be asked for."""
    cut = charts.curves(LINES, "Title", "x", "y", nought=False)
    charts.spans(cut.axes[0], {"outage": (2.0, 4.0)})
    assert [text.get_text() for text in cut.axes[0].texts] == ["outage"]
    chart = ALL["curves"]
    assert cut.axes[0].get_ylim()[0] > chart.axes[0].get_ylim()[0] == 0
    assert names(chart) == ["one", "two"]
    lines = chart.axes[0].get_lines()
    assert len({str(line.get_color()) for line in lines}) == 2
    assert [np.asarray(line.get_ydata()).tolist() for line in lines] == [[5.0, 6.0], [7.0, 9.0]]


def test_the_parts_of_a_stack_add_up_and_cells_say_their_values() -> None:
    """The top of a bar is the sum of its parts; a cell of a heat map says its value."""
    texts = {text.get_position(): text.get_text() for text in ALL["heat"].axes[0].texts}
    assert (texts[0, 0], texts[1, 0]) == ("1.00", "0.00")
    tops = [one.get_y() + one.get_height() for one in ALL["stack"].axes[0].patches]  # type: ignore[attr-defined]
    assert tops == [1.0, 3.0, 3.0, 7.0]
    assert names(ALL["stack"]) == ["x", "y"]


def test_each_row_has_its_name_and_each_picture_its_note() -> None:
    """A picture without its words shows nothing."""
    chart = rows({"first": [(RED, "a"), (BLUE, "b")], "second": [(BLUE, "c")]}, "Title")
    assert [axes.get_title() for axes in chart.axes] == ["a", "b", "c", ""]
    assert [strip.get_suptitle() for strip in chart.subfigs] == ["first", "second"]
    assert chart.get_suptitle() == "Title"


def test_the_principal_directions_tell_most_of_the_variance() -> None:
    """Points on a line need one direction, equal ones none: nothing is divided by nought."""
    for found in principal(np.ones((3, 4))):
        assert np.allclose(found, 0)
    line = np.arange(10.0)[:, None] * np.array([[1.0, 2.0, 2.0]])
    places, shares = principal(line)
    assert np.allclose(np.abs(np.diff(places[:, 0])), 3.0)
    assert np.allclose(places[:, 1], 0)
    assert np.allclose(shares, [1, 0])
