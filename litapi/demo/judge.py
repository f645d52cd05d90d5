"""How good unit vectors are: recall both ways and zero-shot accuracy, in numpy alone.

Row i of the images belongs to row i of the texts. A tie counts against the model, so vectors that
collapsed into one score nothing instead of everything.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.floating[Any]]


def unit(vectors: Vectors) -> Vectors:
    scaled: Vectors = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled


def ranks(queries: Vectors, answers: Vectors) -> NDArray[np.int64]:
    """For each query, how many answers do at least as well as its own; 0 is best."""
    scores = queries @ answers.T
    own = np.diagonal(scores)[:, None]
    beaten: NDArray[np.int64] = (~(scores < own)).sum(axis=1, dtype=np.int64) - 1  # so for NaN too
    return beaten


def recall(queries: Vectors, answers: Vectors, k: int = 1) -> float:
    return float((ranks(queries, answers) < k).mean())


def retrieval(
    images: Vectors, texts: Vectors, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, dict[str, float]]:
    """{"text_to_image": {"recall@1": ...}, "image_to_text": ...}"""
    ways = {"text_to_image": (texts, images), "image_to_text": (images, texts)}
    return {
        way: {f"recall@{k}": recall(queries, answers, k) for k in ks}
        for way, (queries, answers) in ways.items()
    }


def zero_shot(images: Vectors, classes: Vectors, truth: Sequence[int]) -> float:
    """The share of images whose best class, one text vector each, is the true one."""
    best = (images @ classes.T).argmax(axis=1)
    return float((best == np.asarray(truth)).mean())
