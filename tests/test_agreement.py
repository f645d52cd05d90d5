"""How far two sets of vectors agree."""

import numpy as np
import pytest

from litapi.demo.judge import Vectors, unit
from litapi.spaces import NEAREST, Agreement, shared


def some(seed: int, count: int = 60) -> Vectors:
    """Unit vectors."""
    return unit(np.random.default_rng(seed).normal(size=(count, 32)))


def test_the_same_vectors_agree_in_everything() -> None:
    """Also where an item has few neighbours, or none."""
    for count in (1, 2, 3, 60):
        agreement = Agreement.of(some(0, count), some(0, count))
        assert agreement.passed
        assert agreement.least == pytest.approx(1)
        assert agreement.shared == 1


def test_a_rounding_agrees_and_a_noise_does_not() -> None:
    """bfloat16 may be mixed with float32; what moved by a third may not."""
    vectors, noise = some(0), some(1)
    assert Agreement.of(vectors, unit(vectors + 0.01 * noise)).passed
    assert not Agreement.of(vectors, unit(vectors + 0.3 * noise)).passed


def test_a_model_that_finds_the_same_in_other_vectors_does_not_agree() -> None:
    """Turned by a rotation every ranking stays, and no vector does."""
    turned, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(32, 32)))
    agreement = Agreement.of(some(0), some(0) @ turned)
    assert agreement.shared == 1
    assert not agreement.passed


def test_one_item_that_moved_is_enough_to_fail() -> None:
    """The least cosine is its own, and NaN passes no bound."""
    vectors = some(0)
    other = vectors.copy()
    other[7] = vectors[8]
    agreement = Agreement.of(vectors, other)
    assert not agreement.passed
    assert agreement.least == agreement.cosine[7]
    other[7] = np.nan
    assert not Agreement.of(vectors, other).passed


def test_neighbours_are_counted_among_the_nearest_alone() -> None:
    """What stands behind them may change its order."""
    scores = np.tile(np.arange(60.0, 0.0, -1.0), (5, 1))
    swapped = scores.copy()
    swapped[:, 30:] = scores[:, :29:-1]
    assert shared(scores, swapped) == 1
    swapped[:, 0] = -1
    assert shared(scores, swapped) == pytest.approx(1 - 1 / NEAREST)
