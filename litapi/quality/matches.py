"""Pairs of a caption and a picture with what there is to learn from: cosine, match or not, weight.

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

from litapi.quality.captioned import PairsError
from litapi.quality.source import Array

Bools = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]
MOST = 1 << 20  # pairs that do not match; of more a part is drawn, always the same


@dataclass(frozen=True, slots=True)
class Matches:
    """One entry a pair; the weights have a sum of 1."""

    cosine: npt.NDArray[np.float64]
    match: Bools
    weight: npt.NDArray[np.float64]

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
