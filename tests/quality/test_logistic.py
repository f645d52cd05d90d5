"""The fit of a sigmoid to pairs."""

import numpy as np
import pytest

from litapi.quality.captioned import PairsError
from litapi.quality.logistic import fitted
from litapi.quality.matches import Matches
from litapi.scoring import Sigmoid


def asked(cosine: np.ndarray, match: np.ndarray) -> Matches:
    """Pairs of one weight."""
    return Matches(cosine, match, np.full(len(cosine), 1 / len(cosine)))


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
