"""Markdown that reads well as it is."""

from bench.rig.command import markdown


def test_cells_stand_under_one_another() -> None:
    """And the rule says that they lean right."""
    assert markdown([["a", "bcd"], ["12", "3"]]) == "|  a | bcd |\n|---:|----:|\n| 12 |   3 |"
