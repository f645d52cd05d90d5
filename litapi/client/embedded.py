"""What a client and an engine answer with: vectors in the order given, and what was refused.

A client raises a `ClientError`: the server is away, it refuses the request, or it refuses items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypedDict

import numpy as np
import numpy.typing as npt

from litapi.scoring import Array, Scoring

Vectors = npt.NDArray[np.float32]
TEMPLATE = "this is a photo of {label}."  # as /classify has it
Raise = Literal["raise"]
Return = Literal["return"]
OnError = Raise | Return


class ClientError(Exception):
    """The base of all that is raised here on purpose."""


class ServerLost(ClientError):
    """Nothing answered until the deadline."""


class RequestRefused(ClientError):
    """The whole request is refused; `code` is stable and docs/http-api.md lists it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class SpaceChanged(ClientError):
    """Another model answers than before, as in a roll-out. The next call begins with the new one;
    what was embedded before cannot be compared with it."""

    def __init__(self, before: str, now: str) -> None:
        super().__init__(f"the server changed its model: vectors were of {before}, now of {now}")


class ItemRefused(ClientError):
    """One item is refused; its neighbours have their vectors."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ItemsRefused(ClientError):
    """Some items were refused: `errors` has each by its place in what was given."""

    def __init__(self, errors: dict[int, ItemRefused]) -> None:
        first = min(errors)
        super().__init__(
            f"{len(errors)} item(s) refused; the first is item {first}, {errors[first].code}: "
            f"{errors[first]}"
        )
        self.errors = errors


class Options(TypedDict, total=False):
    """What may be said beside the items: the first numbers only, renormalised; patches of an image
    (NaFlex only); a progress bar."""

    dimensions: int
    max_num_patches: int
    progress: bool


@dataclass(slots=True)
class Embedded:
    """`vectors` is (n, dim) float32, unit rows; a refused item's row is NaN and its error in
    `errors`, by place. `cached` is (n,) bool: the vector was known already. Only vectors of one
    `space` may be compared; None is a server that does not tell it."""

    vectors: Vectors
    cached: npt.NDArray[np.bool_]
    errors: dict[int, ItemRefused] = field(default_factory=dict)
    space: str | None = None

    @classmethod
    def blank(cls, count: int, dim: int, space: str | None = None) -> Embedded:
        vectors, cached = np.full((count, dim), np.nan, np.float32), np.zeros(count, np.bool_)
        return cls(vectors, cached, space=space)

    def whole(self) -> Vectors:
        """The vectors, where no item was refused. Raises ItemsRefused."""
        if self.errors:
            raise ItemsRefused(self.errors)
        return self.vectors


@dataclass(frozen=True, slots=True)
class Scores:
    """Float64, one row for each of the first and one column for each of the second: `score` gives
    (texts, images), `classify` (images, labels). `probability` is by the server's calibration where
    it has one; `model_probability` is always the model's own."""

    cosine: npt.NDArray[np.float64]
    probability: npt.NDArray[np.float64]
    model_probability: npt.NDArray[np.float64]
    threshold: float  # the one asked for; else the calibration's, or a half

    @classmethod
    def of(
        cls, rows: Array, columns: Array, scoring: Scoring, threshold: float | None = None
    ) -> Scores:
        """As the server's /score and /classify compute them."""
        cosine = rows.astype(np.float64) @ columns.T
        found = scoring.probabilities(cosine)
        own = found.get("model_probability", found["probability"])
        asked = scoring.threshold if threshold is None else threshold
        return cls(cosine, found["probability"], own, asked)

    @property
    def holds(self) -> npt.NDArray[np.bool_]:
        return self.probability >= self.threshold


def captions(labels: Sequence[str], template: str | Sequence[str]) -> list[str]:
    """All labels in the first template, then in the next. Raises ValueError."""
    templates = listed(template)
    if not templates or not all("{label}" in one for one in templates):
        raise ValueError("template must hold {label}")
    return [one.replace("{label}", label) for one in templates for label in labels]


def listed(template: str | Sequence[str]) -> Sequence[str]:
    return [template] if isinstance(template, str) else template
