"""What transformers makes of a few probes: the measure of every engine and of the pixels.

It needs torch, so an engine that serves without torch keeps it beside its model. The probes are
kept as well: they must not change with the version of a library that draws them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from litapi.model.noise import random_ids
from litapi.model.pixels import PixelMaker, Pixels

Vectors = npt.NDArray[np.float32]
TEXT_TOKENS = (2, 9, 30, 64)  # of the probe texts, EOS included
PICTURE_SIZES = ((61, 97), (80, 40))  # width, height: a portrait and a landscape of unlike grids
PATCHES = 16  # enough for two unlike grids, and cheap on the largest checkpoint


@dataclass(frozen=True, slots=True)
class Probes:
    """Probes, ids (n, 64) or pixels, and the unit vectors (n, dim) that belong to them."""

    items: Any
    vectors: Vectors
    values: list[Vectors] = field(default_factory=list)  # of `probe_pictures`, by its processor

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        values = {f"values_{n}": one for n, one in enumerate(self.values)}
        if isinstance(self.items, np.ndarray):
            return {"ids": self.items, "vectors": self.vectors}
        patches = {f"patches_{n}": one.patches for n, one in enumerate(self.items)}
        grids = np.array([(*one.grid, one.length) for one in self.items])
        return {**patches, "grids": grids, "vectors": self.vectors, **values}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """From what `arrays` gave. Raises KeyError where one is missing."""
        if "ids" in arrays:
            return cls(arrays["ids"], arrays["vectors"])
        pixels = [
            Pixels(arrays[f"patches_{n}"], (int(down), int(across)), int(length))
            for n, (down, across, length) in enumerate(arrays["grids"])
        ]
        names = [f"values_{n}" for n in range(len(PICTURE_SIZES))]
        values = [arrays[name] for name in names if name in arrays]
        return cls(pixels, arrays["vectors"], values)


def probe_ids(vocabulary: int, length: int) -> npt.NDArray[np.int64]:
    """Texts of several lengths, without a tokenizer."""
    return random_ids(TEXT_TOKENS, vocabulary, length, seed=3)


def probe_pictures() -> list[Image.Image]:
    """Noise of two unlike shapes."""
    noise = np.random.default_rng(2)
    return [
        Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in PICTURE_SIZES
    ]


def probe_pixels(maker: PixelMaker) -> Sequence[Pixels]:
    """Two small unlike grids for NaFlex; a fixed resolution has no cheap picture, so one."""
    pictures = probe_pictures() if maker.naflex else probe_pictures()[:1]
    return [maker.make(picture, PATCHES) for picture in pictures]


def near(rows: Vectors, vectors: Vectors) -> bool:
    """Whether rows point where the unit vectors do, by far: damage is meant, not rounding."""
    lengths = np.linalg.norm(rows, axis=-1)
    return bool(((rows * vectors).sum(axis=-1) >= 0.9 * lengths).all() and lengths.all())
