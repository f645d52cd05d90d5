"""JPEGs with the detail of a photograph, drawn from a seed, and PNGs that are all noise.

Noise alone would make decoding many times as dear as it is, an even picture would make it free. So
waves of every length are laid over one another, the shorter the weaker, as in nature, with soft
colours and a sensor's grain. A pixel takes about as many bytes as in a camera's file.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from PIL import Image

QUALITY = 90
FADE = 0.5  # each octave has half the contrast of the one before, to this power
CONTRAST = 50.0  # levels, standard deviation
COLOUR = 20.0
GRAIN = 5.0
COARSE = 4  # octaves that have a colour of their own

Levels = np.ndarray[Any, np.dtype[np.float32]]


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    random = np.random.default_rng(seed)
    octaves = max(COARSE, math.ceil(math.log2(max(width, height))))
    light = CONTRAST * _waves(random, width, height, octaves)
    light += 128 + GRAIN * random.standard_normal(light.shape, np.float32)
    tints = [COLOUR * _waves(random, width, height, COARSE) for _ in range(3)]
    levels = np.stack([light + tint for tint in tints], axis=-1)
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def _waves(random: np.random.Generator, width: int, height: int, octaves: int) -> Levels:
    """Smooth noise of standard deviation 1, (height, width): 4, 8, 16 … waves along a side."""
    total = np.zeros((height, width), np.float32)
    for octave in range(2, octaves):
        scale = 2**octave / max(width, height)
        coarse = (math.ceil(height * scale), math.ceil(width * scale))
        waves = Image.fromarray(random.standard_normal(coarse, np.float32))
        stretched = waves.resize((width, height), Image.Resampling.BICUBIC)
        total += 2 ** (-FADE * octave) * np.asarray(stretched)
    smooth: Levels = total / total.std()
    return smooth


def encoded(picture: Image.Image, form: str, **options: Any) -> bytes:
    """The bytes of a file; `options` are Pillow's."""
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def jpeg(width: int, height: int, seed: int = 0) -> bytes:
    return encoded(photo(width, height, seed), "JPEG", quality=QUALITY)


def noise(side: int, seed: int = 0) -> bytes:
    """A square PNG that does not compress: three bytes a pixel."""
    levels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    return encoded(Image.fromarray(levels), "PNG", compress_level=1)
