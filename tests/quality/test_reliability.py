"""What probabilities are worth: bins, calibration error, F1, threshold."""

import numpy as np
import pytest

from litapi.quality.matches import Matches
from litapi.quality.reliability import Reliability, best_threshold, f1, figures
from litapi.scoring import Sigmoid


def asked(cosine: list[float], match: list[bool], weight: list[float] | None = None) -> Matches:
    even = [1 / len(match)] * len(match)
    return Matches(np.array(cosine), np.array(match), np.array(weight or even))


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
    pairs = asked([0] * 100_000, list(rng.random(100_000) < probability))
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
    pairs = asked([0] * 200, list(rng.random(200) < probability), list(rng.dirichlet([1] * 200)))
    best = f1(probability >= best_threshold(probability, pairs), pairs)
    others = [f1(probability >= one, pairs) for one in np.unique(probability)]
    assert best == pytest.approx(max(others))


def test_the_log_loss_of_a_certain_mistake_is_finite() -> None:
    """A probability that rounds to 0 is not 0."""
    found = figures(Sigmoid(1000.0, 0.0), 0.5, asked([-1, 1], [True, True]))
    assert found.log_loss == pytest.approx(500)
    assert found.f1 == pytest.approx(2 / 3)
