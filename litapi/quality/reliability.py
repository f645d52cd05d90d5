"""Whether probabilities mean what they say: of pairs with about 0.7, seven in ten should match."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from litapi.calibration import Figures
from litapi.quality.matches import Matches
from litapi.scoring import Sigmoid

BINS = 15  # of equal width

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reliability:
    """For each bin of probabilities that holds any pair: what was said, what is so, how many.
    `said` is the mean probability, `matching` the share that matches, `weight` that of the bin."""

    said: Vector
    matching: Vector
    weight: Vector

    @classmethod
    def of(cls, probability: Vector, pairs: Matches) -> Self:
        bins = np.minimum((probability * BINS).astype(np.int64), BINS - 1)

        def total(values: Vector) -> Vector:
            return np.asarray(np.bincount(bins, values, BINS), np.float64)

        weight = total(pairs.weight)
        some = weight > 0
        said, true = total(pairs.weight * probability), total(pairs.weight * pairs.match)
        return cls(said[some] / weight[some], true[some] / weight[some], weight[some])

    @property
    def error(self) -> float:
        return float(self.weight @ np.abs(self.said - self.matching))


def figures(sigmoid: Sigmoid, threshold: float, pairs: Matches) -> Figures:
    logit, probability = sigmoid.logit(pairs.cosine), sigmoid(pairs.cosine)
    loss = np.logaddexp(0, np.where(pairs.match, -logit, logit))
    return Figures(
        threshold=threshold,
        log_loss=float(pairs.weight @ loss),
        f1=f1(probability >= threshold, pairs),
        calibration_error=Reliability.of(probability, pairs).error,
    )


def f1(claimed: npt.NDArray[np.bool_], pairs: Matches) -> float:
    right = pairs.weight[claimed & pairs.match].sum()
    return float(2 * right / (pairs.weight[claimed].sum() + pairs.weight[pairs.match].sum()))


def best_threshold(probability: Vector, pairs: Matches) -> float:
    """The probability from which on claiming a match gives the best F1 on these pairs. It lies half
    way between the last that is claimed and the next."""
    order = np.argsort(-probability, kind="stable")
    ranked, weight = probability[order], pairs.weight[order]
    right = np.cumsum(weight * pairs.match[order])
    scores = 2 * right / (np.cumsum(weight) + right[-1])
    lower = np.append(ranked[1:], ranked[-1])
    scores[:-1][ranked[:-1] == lower[:-1]] = 0  # equal ones are claimed together or not at all
    best = int(scores.argmax())
    return float((ranked[best] + lower[best]) / 2)
