"""Charts: what stands on them, and what a notebook shows of them."""

import io

import numpy as np
import pytest
from PIL import Image

from notebooks.figures.chart import (
    Chart,
    bars,
    canvas,
    curves,
    groups,
    heat,
    histogram,
    reliability,
    spans,
    stack,
)

LINES = {"one": ([1.0, 10.0], [5.0, 6.0]), "two": ([1.0, 10.0], [7.0, 9.0])}
NESTED = {"a": {"x": 1.0, "y": 2.0}, "b": {"x": 3.0, "y": 4.0}}
ALL = {
    "curves": curves(LINES, "Title", "across (s)", "up (ms)"),
    "groups": groups(NESTED, "Title", "across", "up (ms)"),
    "stack": stack(NESTED, "Title", "across", "up (ms)"),
    "histogram": histogram({"one": [1.0, 2.0, 2.0]}, "Title", "value (ms)"),
    "reliability": reliability({"one": ([0.1, 0.8], [0.2, 0.7], [0.9, 0.1])}, "Title"),
    "bars": bars({"one": 1.0, "two": 2.0}, "Title", "value (ms)"),
    "heat": heat(np.eye(2), ["a", "b"], ["c", "d"], "Title", "cosine", ("row", "column")),
}

every = pytest.mark.parametrize("chart", ALL.values(), ids=ALL.keys())


def names(chart: Chart) -> list[str]:
    return chart.axes[0].get_legend_handles_labels()[1]


@every
def test_a_chart_has_a_title_and_names_its_axes(chart: Chart) -> None:
    """Nobody has to guess; a long title is broken, or it would run into the legend."""
    assert "\n" in canvas("word " * 30, "x", "y").axes[0].get_title()
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
    cut = curves(LINES, "Title", "x", "y", nought=False)
    spans(cut.axes[0], {"outage": (2.0, 4.0)})
    assert [text.get_text() for text in cut.axes[0].texts] == ["outage"]
    chart = ALL["curves"]
    assert cut.axes[0].get_ylim()[0] > chart.axes[0].get_ylim()[0] == 0
    assert names(chart) == ["one", "two"]
    assert len({str(line.get_color()) for line in chart.axes[0].get_lines()}) == 2
    assert [list(np.asarray(line.get_ydata())) for line in chart.axes[0].get_lines()] == [
        [5.0, 6.0],
        [7.0, 9.0],
    ]


def test_the_parts_of_a_stack_add_up_and_cells_say_their_values() -> None:
    """The top of a bar is the sum of its parts; a cell of a heat map says its value."""
    texts = {text.get_position(): text.get_text() for text in ALL["heat"].axes[0].texts}
    assert (texts[0, 0], texts[1, 0]) == ("1.00", "0.00")
    tops = [one.get_y() + one.get_height() for one in ALL["stack"].axes[0].patches]  # type: ignore[attr-defined]
    assert tops == [1.0, 3.0, 3.0, 7.0]
    assert names(ALL["stack"]) == ["x", "y"]
