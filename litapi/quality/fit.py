"""A sigmoid fitted to pairs of a caption and a picture, and what its probabilities are worth.

Every caption is paired with every picture, so of N pictures one pair in N matches. That share says
how large the folder is, and nothing of what will be asked. So pairs are weighted: those that match
make up a share that is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from litapi.calibration import Figures
from litapi.quality.pairs import PairsError
from litapi.scoring import Array, Sigmoid

MOST = 1 << 20  # pairs that do not match; of more a part is drawn, always the same
STEPS, ENOUGH, HALVINGS = 100, 1e-10, 40  # of Newton's method
BINS = 15  # of equal width

Vector = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Matches:
    """One entry a pair; the weights have a sum of 1."""

    cosine: Vector
    match: Bools
    weight: Vector

    @classmethod
    def of(cls, cosine: Array, match: Bools, share: float) -> Self:
        """Of all captions (rows) with all pictures; `share` of the weight is on those that match.
        Raises PairsError where all match."""
        true, false = np.flatnonzero(match), np.flatnonzero(~match)
        if not len(false):
            raise PairsError("every caption is of every picture")
        if len(false) > MOST:
            false = np.sort(np.random.default_rng(0).choice(false, MOST, replace=False))
        chosen = np.concatenate([true, false])
        weight = np.repeat([share / len(true), (1 - share) / len(false)], [len(true), len(false)])
        return cls(cosine.ravel()[chosen].astype(np.float64), match.ravel()[chosen], weight)

    @classmethod
    def split(
        cls,
        texts: Array,
        images: Array,
        captions: Sequence[str],
        owners: Sequence[int],
        share: float,
    ) -> tuple[Matches, Matches]:
        """Two halves that have no picture in common, each with the captions of its pictures. Row i
        of `texts` is caption i, which is of picture `owners[i]`; rows are unit vectors."""
        first, match = owned(captions, owners)
        rows = texts[first].astype(np.float64)

        def half(pictures: Places) -> Matches:
            said = match[:, pictures].any(axis=1)
            cosine = rows[said] @ images[pictures].T
            return cls.of(cosine, match[np.ix_(said, pictures)], share)

        one, other = halves(len(images))
        return half(one), half(other)

    def __len__(self) -> int:
        return len(self.match)


def halves(count: int) -> tuple[Places, Places]:
    """Two halves of that many pictures, drawn, and the same each time."""
    order = np.random.default_rng(0).permutation(count)
    return np.sort(order[: count // 2]), np.sort(order[count // 2 :])


def owned(captions: Sequence[str], owners: Sequence[int]) -> tuple[Places, Bools]:
    """Where each different caption stands first, and (captions, pictures): which is said of which.
    A caption that several pictures have is right for each of them, not wrong for all but one."""
    lower = [caption.lower() for caption in captions]  # as SigLIP 2 reads them
    _, first, which = np.unique(lower, return_index=True, return_inverse=True)
    match = np.zeros((len(first), max(owners) + 1), np.bool_)
    match[which, owners] = True
    return first, match


def fitted(pairs: Matches) -> Sigmoid:
    """The sigmoid whose weighted log loss is least, as Platt fits it. Raises PairsError where
    matching pairs have no larger cosines than others."""
    middle, spread = pairs.cosine.mean(), pairs.cosine.std()
    if not spread > 0:
        raise PairsError("all pairs have the same cosine")
    inputs = np.stack([(pairs.cosine - middle) / spread, np.ones(len(pairs))], axis=1)
    slope, offset = _newton(inputs, _targets(pairs), pairs.weight)
    if not slope > 0:
        raise PairsError("matching pairs have no larger cosines than others")
    return Sigmoid(float(slope / spread), float(offset - slope * middle / spread))


def _targets(pairs: Matches) -> Vector:
    """Platt's, from how many pairs there are: a little inside 0 and 1, so that pairs that are
    perfectly apart do not ask for a scale without end."""
    true = int(pairs.match.sum())
    false = len(pairs) - true
    return np.where(pairs.match, (true + 1) / (true + 2), 1 / (false + 2))


def _newton(inputs: Vector, targets: Vector, weight: Vector) -> Vector:
    """Convex, so a step that does not go down is only too long."""

    def loss(at: Vector) -> float:
        logit = inputs @ at
        return float(weight @ (np.logaddexp(0, logit) - targets * logit))

    at = np.zeros(inputs.shape[1])
    for _ in range(STEPS):
        found = 1 / (1 + np.exp(-(inputs @ at)))
        slope = inputs.T @ (weight * (found - targets))
        curve = (inputs * (weight * found * (1 - found))[:, None]).T @ inputs
        step = np.linalg.solve(curve, slope)
        for _ in range(HALVINGS):
            if loss(at - step) <= loss(at):
                break
            step = step / 2
        at = at - step
        if np.abs(step).max() < ENOUGH:
            break
    return at


@dataclass(frozen=True, slots=True)
class Reliability:
    """Whether probabilities mean what they say: of pairs with about 0.7, seven in ten should match.
    For each bin of probabilities that holds any pair: what was said, what is so, how many.
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


def f1(claimed: Bools, pairs: Matches) -> float:
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
