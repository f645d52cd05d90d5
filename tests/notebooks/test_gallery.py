"""Galleries: which picture stands where, and the plane that vectors are laid out on."""

import numpy as np
from PIL import Image

from notebooks.figures.gallery import principal, rows

RED = Image.new("RGB", (40, 20), (255, 0, 0))
BLUE = Image.new("RGB", (20, 40), (0, 0, 255))


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
