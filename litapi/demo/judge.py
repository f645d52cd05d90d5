"""How good unit vectors are: recall both ways and zero-shot accuracy, in numpy alone.

Row i of the images belongs to row i of the texts, unless it is said whose each is. A tie counts
against the model, so vectors that collapsed into one score nothing instead of everything.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.floating[Any]]


def unit(vectors: Vectors) -> Vectors:
    scaled: Vectors = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled


def ranks(
    queries: Vectors, answers: Vectors, own: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """For each query, how many foreign answers do at least as well as its best own; 0 is best.
    `own` (queries, answers) says which are whose."""
    scores = queries @ answers.T
    own = np.eye(len(scores), dtype=np.bool_) if own is None else own
    best = scores.max(axis=1, keepdims=True, where=own, initial=-np.inf)
    beaten: NDArray[np.int64] = (~(scores < best) & ~own).sum(axis=1, dtype=np.int64)  # NaN too
    return beaten


def recall(queries: Vectors, answers: Vectors, k: int = 1) -> float:
    return float((ranks(queries, answers) < k).mean())


def retrieval(
    images: Vectors,
    texts: Vectors,
    ks: Sequence[int] = (1, 5, 10),
    owners: Sequence[int] | None = None,
) -> dict[str, dict[str, float]]:
    """{"text_to_image": {"recall@1": ...}, "image_to_text": ...}. `owners` is each text's image; of
    several texts of an image any finds it."""
    places = np.asarray(range(len(texts)) if owners is None else owners)
    own = places[:, None] == np.arange(len(images))
    ways = {
        "text_to_image": ranks(texts, images, own),
        "image_to_text": ranks(images, texts, own.T),
    }
    return {way: {f"recall@{k}": float((r < k).mean()) for k in ks} for way, r in ways.items()}


def zero_shot(images: Vectors, classes: Vectors, truth: Sequence[int]) -> float:
    """The share of images whose best class, one text vector each, is the true one."""
    best = (images @ classes.T).argmax(axis=1)
    return float((best == np.asarray(truth)).mean())
