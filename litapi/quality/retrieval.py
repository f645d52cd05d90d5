"""Recall on pictures and captions, as it is published for SigLIP 2: text → image and image → text.

A picture may have several captions. An image finds its text when any of them is among the first k,
and each caption is asked for its picture. A tie counts against the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from litapi.quality.source import Array

FIRST = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Recall:
    """Shares in 0…1 for each k of FIRST."""

    text_to_image: tuple[float, ...]
    image_to_text: tuple[float, ...]

    @classmethod
    def of(cls, texts: Array, images: Array, owners: Sequence[int]) -> Self:
        """Unit vectors (texts, dim) and (images, dim); `owners` is each text's image."""
        scores, own = texts @ images.T, np.asarray(owners)
        own_scores = scores[np.arange(len(own)), own]
        # of each text, how many other images do at least as well as its own
        beaten = (~(scores < own_scores[:, None])).sum(axis=1) - 1
        best = np.full(len(images), -np.inf)
        np.maximum.at(best, own, own_scores)
        # of each image, how many foreign texts do at least as well as its best caption
        foreign = ~(scores < best) & (own[:, None] != np.arange(len(images)))
        return cls(_shares(beaten), _shares(foreign.sum(axis=0)))

    def lines(self) -> Iterator[str]:
        yield f"{'':<14}" + "".join(f"{f'recall@{k}':>11}" for k in FIRST)
        for name, shares in (
            ("text → image", self.text_to_image),
            ("image → text", self.image_to_text),
        ):
            yield f"{name:<14}" + "".join(f"{share:>11.1%}" for share in shares)


def _shares(ranks: npt.NDArray[np.int64]) -> tuple[float, ...]:
    return tuple(float((ranks < k).mean()) for k in FIRST)
