"""Logistic regression on one number, as Platt fits it: two parameters, by Newton's method.

The targets are a little inside 0 and 1 (Platt's, from how many pairs there are), so that pairs that
are perfectly apart do not ask for a scale without end.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from litapi.quality.captioned import PairsError
from litapi.quality.matches import Matches
from litapi.scoring import Sigmoid

STEPS, ENOUGH = 100, 1e-10
HALVINGS = 40

Vector = npt.NDArray[np.float64]


def fitted(pairs: Matches) -> Sigmoid:
    """The sigmoid whose weighted log loss is least. Raises PairsError where matching pairs have no
    larger cosines than others."""
    middle, spread = pairs.cosine.mean(), pairs.cosine.std()
    if not spread > 0:
        raise PairsError("all pairs have the same cosine")
    inputs = np.stack([(pairs.cosine - middle) / spread, np.ones(len(pairs))], axis=1)
    slope, offset = _newton(inputs, _targets(pairs), pairs.weight)
    if not slope > 0:
        raise PairsError("matching pairs have no larger cosines than others")
    return Sigmoid(float(slope / spread), float(offset - slope * middle / spread))


def _targets(pairs: Matches) -> Vector:
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
