"""Recall both ways."""

import numpy as np
import pytest

from litapi.demo.judge import retrieval
from litapi.scoring import Array

EYE = np.eye(12)


def shares(texts: Array, images: Array, owners: list[int]) -> list[list[float]]:
    """At 1, 5 and 10; text → image and image → text."""
    return [[*way.values()] for way in retrieval(images, texts, owners=owners).values()]


def test_recall_counts_ranks_both_ways_and_ties_against_the_model() -> None:
    """A caption whose picture is second counts at 5, and equal scores are no success."""
    images = EYE[:3]
    texts = np.array([EYE[0], 0.6 * EYE[1] + 0.8 * EYE[0], np.ones(12) / np.sqrt(12)])
    text_to_image, image_to_text = shares(texts, images, [0, 1, 2])
    assert text_to_image == pytest.approx([1 / 3, 1.0, 1.0])
    # the second image is found by its own caption first; the third shares a zero with another's
    assert image_to_text == [1.0, 1.0, 1.0]


def test_any_caption_of_a_picture_finds_it() -> None:
    """The best of five captions decides for the image; each caption counts for itself."""
    texts = np.concatenate([EYE[:2], EYE[5:6]])
    text_to_image, image_to_text = shares(texts, EYE[:2], [0, 1, 1])
    assert image_to_text[0] == 1.0
    assert text_to_image[0] == pytest.approx(2 / 3)
