"""Medians, ratios within rounds, targets."""

import pytest

from bench.rig.command import Spread, Target, markdown, ratio


def test_a_spread_keeps_every_round_and_the_extremes() -> None:
    """The median stands between them."""
    spread = Spread.of([3.0, 1.0, 2.00049])
    assert (spread.median, spread.low, spread.high) == (2.00049, 1.0, 3.0)
    fields = {"rounds": [3.0, 1.0, 2.0], "median": 2.0, "low": 1.0, "high": 3.0}
    assert spread.fields() == fields


def test_a_ratio_is_taken_within_each_round() -> None:
    """A machine that was slow in one round was slow for both."""
    assert ratio([2.0, 20.0, 4.0], [1.0, 10.0, 1.0]) == 2.0


def test_rounds_of_unlike_number_are_refused() -> None:
    """One system missed a turn: nothing can be paired."""
    with pytest.raises(ValueError, match="shorter"):
        ratio([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("limits", "met"),
    [
        ({"at_most": 1.6}, True),
        ({"at_most": 1.5}, True),
        ({"at_most": 1.4}, False),
        ({"at_least": 1.5}, True),
        ({"at_least": 4.0}, False),
    ],
)
def test_a_target_is_met_up_to_its_limit(limits: dict[str, float], met: bool) -> None:
    """And says so in its line and in its fields."""
    target = Target("a over b", 1.5, **limits)
    assert target.met is met
    assert target.line().startswith("met" if met else "MISSED")
    assert target.fields() == {"name": "a over b", "ratio": 1.5, **limits, "met": met}


def test_cells_stand_under_one_another() -> None:
    """And the rule says that they lean right."""
    assert markdown([["a", "bcd"], ["12", "3"]]) == "|  a | bcd |\n|---:|----:|\n| 12 |   3 |"
