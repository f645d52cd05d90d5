"""Recall both ways."""

import numpy as np
import pytest

from litapi.quality.retrieval import Recall

EYE = np.eye(12)


def test_recall_counts_ranks_both_ways_and_ties_against_the_model() -> None:
    """A caption whose picture is second counts at 5, and equal scores are no success."""
    images = EYE[:3]
    texts = np.array([EYE[0], 0.6 * EYE[1] + 0.8 * EYE[0], np.ones(12) / np.sqrt(12)])
    recall = Recall.of(texts, images, [0, 1, 2])
    assert recall.text_to_image == pytest.approx((1 / 3, 1.0, 1.0))
    # the second image is found by its own caption first; the third shares a zero with another's
    assert recall.image_to_text == pytest.approx((1.0, 1.0, 1.0))


def test_any_caption_of_a_picture_finds_it() -> None:
    """The best of five captions decides for the image; each caption counts for itself."""
    texts = np.concatenate([EYE[:2], EYE[5:6]])
    recall = Recall.of(texts, EYE[:2], [0, 1, 1])
    assert recall.image_to_text[0] == 1.0
    assert recall.text_to_image[0] == pytest.approx(2 / 3)


def test_vectors_that_collapsed_find_nothing() -> None:
    """Where all vectors are one, every rank is a tie."""
    same = np.tile(EYE[:1], (12, 1))
    assert Recall.of(same, same, list(range(12))).text_to_image == (0.0, 0.0, 0.0)
