"""Inputs of no meaning, which reach more of a tower's range than any few captions or drawings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from litapi.model.tokens import EOS

SHAPES = ((224, 224), (320, 180), (160, 288))  # width, height: unlike grids for NaFlex
SCALES = (4, 8, 16, 32, 64, 128, 256)  # squares of one colour across a picture


def random_ids(
    tokens: Sequence[int], vocabulary: int, length: int, seed: int
) -> npt.NDArray[np.int64]:
    """Texts (n, length) of so many tokens each: any of the vocabulary, EOS, pads."""
    random = np.random.default_rng(seed)
    ids = np.zeros((len(tokens), length), np.int64)
    for row, many in zip(ids, tokens, strict=True):
        count = min(many, length)
        row[: count - 1] = random.integers(min(5, vocabulary - 1), vocabulary, count - 1)
        row[count - 1] = EOS
    return ids


def clouds(count: int, seed: int) -> list[Image.Image]:
    """Noise at several scales, the coarse ones stronger, as in photographs."""
    random = np.random.default_rng(seed)
    return [_cloud(random, SHAPES[number % len(SHAPES)]) for number in range(count)]


def _cloud(random: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    levels = np.zeros((size[1], size[0], 3))
    for scale in SCALES:
        noise = Image.fromarray(random.integers(0, 256, (scale, scale, 3), dtype=np.uint8))
        levels += np.asarray(noise.resize(size, Image.Resampling.BICUBIC)) / scale**0.5
    low, high = levels.min(), levels.max()
    return Image.fromarray(((levels - low) * (255 / (high - low))).astype(np.uint8))
