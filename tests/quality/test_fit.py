"""A sigmoid fitted to pairs: the pairs, the fit, and what its probabilities are worth."""

import numpy as np
import numpy.typing as npt
import pytest

from litapi.quality import fit
from litapi.quality.fit import (
    Matches,
    Reliability,
    best_threshold,
    f1,
    figures,
    fitted,
    halves,
    owned,
)
from litapi.quality.pairs import PairsError
from litapi.scoring import Sigmoid


def asked(
    cosine: npt.ArrayLike, match: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> Matches:
    """Pairs, of one weight unless said."""
    true = np.asarray(match)
    even = np.full(len(true), 1 / len(true))
    return Matches(np.asarray(cosine), true, even if weight is None else np.asarray(weight))


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
    monkeypatch.setattr(fit, "MOST", 10)
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


def test_the_sigmoid_that_made_the_pairs_is_found_again() -> None:
    """From 200,000 pairs drawn by it, within what chance allows."""
    rng = np.random.default_rng(3)
    cosine = rng.normal(0.1, 0.2, 200_000)
    truth = Sigmoid(12.0, -3.0)
    found = fitted(asked(cosine, rng.random(len(cosine)) < truth(cosine)))
    assert found.scale == pytest.approx(truth.scale, rel=0.02)
    assert found.bias == pytest.approx(truth.bias, rel=0.02)


def test_no_other_sigmoid_has_a_smaller_loss() -> None:
    """Moved a little any way, the loss is larger: it is the minimum, not near it."""
    rng = np.random.default_rng(4)
    cosine = rng.normal(0, 0.3, 2000)
    match = rng.random(2000) < Sigmoid(9.0, -2.0)(cosine)
    pairs, found = asked(cosine, match), fitted(asked(cosine, match))
    target = np.where(match, (match.sum() + 1) / (match.sum() + 2), 1 / ((~match).sum() + 2))

    def loss(scale: float, bias: float) -> float:
        logit = Sigmoid(scale, bias).logit(cosine)
        return float(pairs.weight @ (np.logaddexp(0, logit) - target * logit))

    least = loss(found.scale, found.bias)
    for step in (1e-3, -1e-3):
        assert loss(found.scale + step, found.bias) > least
        assert loss(found.scale, found.bias + step) > least


def test_pairs_that_are_perfectly_apart_get_a_finite_scale() -> None:
    """Their likelihood alone has no maximum; Platt's targets give it one."""
    cosine = np.repeat([0.1, 0.6], 50)
    found = fitted(asked(cosine, cosine > 0.5))
    assert found(np.array([0.1, 0.6])) == pytest.approx([1 / 52, 51 / 52], abs=1e-6)


@pytest.mark.parametrize("cosine", [np.full(40, 0.3), -np.repeat([0.1, 0.6], 20)])
def test_cosines_that_say_nothing_or_the_contrary_are_refused(cosine: np.ndarray) -> None:
    """No sigmoid that rises fits them."""
    with pytest.raises(PairsError):
        fitted(asked(cosine, np.repeat([False, True], 20)))


def test_bins_hold_what_was_said_and_what_is_so() -> None:
    """By hand: two pairs near 0.7 of which one matches, one near 0.1 that does not; 1 has a bin."""
    found = Reliability.of(np.array([1.0]), asked([1], [True]))
    assert (found.said.tolist(), found.error) == ([1.0], 0.0)
    pairs = asked([0, 0, 0], [True, False, False], [0.25, 0.25, 0.5])
    found = Reliability.of(np.array([0.68, 0.72, 0.1]), pairs)
    assert found.said == pytest.approx([0.1, 0.7])
    assert found.matching == pytest.approx([0.0, 0.5])
    assert found.weight == pytest.approx([0.5, 0.5])
    assert found.error == pytest.approx(0.5 * 0.1 + 0.5 * 0.2)


def test_probabilities_that_mean_what_they_say_have_hardly_any_error() -> None:
    """Matches drawn by the very probabilities, 100,000 of them; halved ones are far off."""
    rng = np.random.default_rng(5)
    probability = rng.random(100_000)
    pairs = asked([0] * 100_000, rng.random(100_000) < probability)
    assert Reliability.of(probability, pairs).error < 0.01
    assert Reliability.of(probability / 2, pairs).error > 0.2


def test_f1_is_that_of_precision_and_recall() -> None:
    """Two of three claims right, two of four matches claimed, by weight."""
    pairs = asked([0] * 6, [True, True, True, True, False, False])
    claimed = np.array([True, True, False, False, True, False])
    assert f1(claimed, pairs) == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_has_a_better_f1(seed: int) -> None:
    """Against every one that makes a difference, with equal probabilities among them."""
    rng = np.random.default_rng(seed)
    probability = rng.integers(0, 20, 200) / 20
    pairs = asked([0] * 200, rng.random(200) < probability, rng.dirichlet([1] * 200))
    best = f1(probability >= best_threshold(probability, pairs), pairs)
    others = [f1(probability >= one, pairs) for one in np.unique(probability)]
    assert best == pytest.approx(max(others))


def test_the_log_loss_of_a_certain_mistake_is_finite() -> None:
    """A probability that rounds to 0 is not 0."""
    found = figures(Sigmoid(1000.0, 0.0), 0.5, asked([-1, 1], [True, True]))
    assert found.log_loss == pytest.approx(500)
    assert found.f1 == pytest.approx(2 / 3)
