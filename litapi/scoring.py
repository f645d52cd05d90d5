"""From vectors to "this text is true of this picture": labels, probabilities, a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
HALF = 0.5  # where a match is as probable as not


def ensemble(captions: Array, templates: int) -> Array:
    """One unit vector for each label: the mean of its captions' vectors, of length 1 again.

    `captions` is (templates · labels, dim): all labels in the first template, then in the next.
    With a single template its vectors are the labels' as they are, to the bit.
    """
    if templates == 1:
        return captions
    apart = captions.reshape(templates, -1, captions.shape[-1])
    mean = apart.mean(axis=0, dtype=np.float64)
    return np.asarray(mean / np.linalg.norm(mean, axis=-1, keepdims=True))


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """sigmoid(scale · cosine + bias), of arrays of any shape."""

    scale: float
    bias: float

    def __call__(self, cosine: Array) -> npt.NDArray[np.float64]:
        with np.errstate(over="ignore"):  # beyond what float64 holds the answer is 0
            return np.asarray(1.0 / (1.0 + np.exp(-self.logit(cosine))))

    def logit(self, cosine: Array) -> Array:
        return self.scale * cosine + self.bias


@dataclass(frozen=True, slots=True)
class Scoring:
    """The model's own sigmoid, and a fitted one that is believed instead where there is any."""

    model: Sigmoid
    fitted: Sigmoid | None = None
    threshold: float = HALF  # of the probability, from which on a label holds

    def probabilities(self, cosine: Array) -> dict[str, npt.NDArray[np.float64]]:
        """`probability`, and beside a fitted one the `model_probability`."""
        own = self.model(cosine)
        if self.fitted is None:
            return {"probability": own}
        return {"probability": self.fitted(cosine), "model_probability": own}
