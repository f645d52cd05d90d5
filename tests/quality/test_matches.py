"""Pairs of captions and pictures as something can be learned from them."""

import numpy as np
import pytest

from litapi.quality import matches
from litapi.quality.captioned import PairsError
from litapi.quality.matches import Matches, halves, owned


def test_a_caption_of_several_pictures_is_right_for_each() -> None:
    """Whatever its capitals; and it counts once, where it stands first."""
    first, match = owned(["a star", "a moon", "A Star", "a ring"], [0, 1, 2, 2])
    assert [int(place) for place in first] == [1, 3, 0]
    assert match.astype(int).tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 1]]


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_matching_pairs_weigh_what_was_chosen(share: float) -> None:
    """Whatever the share of the folder; all weights together are 1, and no pair is lost."""
    match = np.eye(6, dtype=bool)
    cosine = np.arange(36.0).reshape(6, 6) / 36
    pairs = Matches.of(cosine, match, share)
    assert len(pairs) == 36
    assert pairs.weight[pairs.match].sum() == pytest.approx(share)
    assert pairs.weight.sum() == pytest.approx(1)
    assert sorted(pairs.cosine[pairs.match]) == sorted(np.diagonal(cosine))


def test_of_very_many_pairs_a_part_is_drawn_the_same_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of those that do not match; those that do are too few to leave any out."""
    monkeypatch.setattr(matches, "MOST", 10)
    cosine = np.random.default_rng(1).random((8, 8))
    one, other = (Matches.of(cosine, np.eye(8, dtype=bool), 0.1) for _ in range(2))
    assert (len(one), int(one.match.sum())) == (18, 8)
    assert np.array_equal(one.cosine, other.cosine)
    assert set(one.cosine[~one.match]) <= set(cosine[~np.eye(8, dtype=bool)])


def test_pairs_that_all_match_are_refused() -> None:
    """There is nothing to tell a match from."""
    with pytest.raises(PairsError, match="every caption"):
        Matches.of(np.ones((1, 3)), np.ones((1, 3), bool), 0.5)


def test_halves_share_no_picture_and_leave_none_out() -> None:
    """And are the same each time."""
    ours, theirs = halves(21)
    assert (len(ours), len(theirs)) == (10, 11)
    assert sorted([*ours, *theirs]) == list(range(21))
    assert np.array_equal(halves(21)[0], ours)
