"""How far two servers agree about the same items, and whether their vectors may lie in one index.

A cosine tells whether an item has the same vector at both. Two models of one size agree in nothing
and may still find the same things, so it decides; what is found is held against it, for in a crowd
of likenesses a small difference is enough to change that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from litapi.demo.judge import Vectors

# int8 beside float32 keeps a median of 0.9999 and, of a text that the demo never learnt, 0.994
MEDIAN, LEAST = 0.995, 0.97  # cosines of the items' two vectors
SHARED = 0.8  # of the nearest neighbours
NEAREST = 10


@dataclass(frozen=True, slots=True)
class Agreement:
    """`cosine` is (n,), of the two vectors of each item. `shared` is the part of each item's
    nearest neighbours that both servers name, each by its own vectors."""

    cosine: npt.NDArray[np.float64]
    shared: float

    @classmethod
    def of(cls, one: Vectors, other: Vectors) -> Self:
        """(n, dim) unit vectors of the same items in the same order."""
        cosine = (one.astype(np.float64) * other).sum(axis=-1)
        return cls(cosine, shared(_apart(one @ one.T), _apart(other @ other.T)))

    @property
    def passed(self) -> bool:
        """Whether the two are one space, as far as these items tell."""
        alike = np.median(self.cosine) >= MEDIAN and self.least >= LEAST
        return bool(alike and self.shared >= SHARED)

    @property
    def least(self) -> float:
        """The least cosine; NaN where a vector is none."""
        return float(self.cosine.min())


def shared(one: Vectors, other: Vectors) -> float:
    """The part of the nearest columns of each row that two matrices of similarities agree on."""
    many = max(1, min(NEAREST, one.shape[1] // 4))
    nearest = zip(*(np.argsort(-scores, axis=1)[:, :many] for scores in (one, other)), strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) / many for a, b in nearest]))


def _apart(scores: Vectors) -> Vectors:
    np.fill_diagonal(scores, -np.inf)
    return scores
