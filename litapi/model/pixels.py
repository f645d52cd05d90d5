"""A picture to model input, equal to the bit to transformers' PIL image processors.

The reference turns the picture into float32 and then moves it about, which costs most of its
time. Here the picture stays uint8: Pillow resizes it, one copy cuts it into patches, and the 256
possible float32 values stand in a table that the encoder looks up, on its own device and for a
quarter of the bytes. The values are those of `Siglip2ImageProcessorPil` (NaFlex: aspect ratio
kept, at most so many patches) and `SiglipImageProcessorPil` (squashed to a square, no crop).

NaFlex sizes come from a bisection over the scale that the reference ends at a fixed tolerance;
its result depends on the path, so the path is walked alike, once for each size of picture.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from litapi.checkpoint import Checkpoint

TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Pixels:
    """One picture as the model takes it.

    `patches` is uint8: (patches, patch · patch · 3) for NaFlex, rows of the grid one after
    another, or (height, width, 3) for a fixed resolution. `grid` is patches down and across.
    `length` is the most patches it might have had: it is padded to so many, alone or not, where
    padding could change its bits.
    """

    patches: npt.NDArray[np.uint8]
    grid: tuple[int, int]
    length: int

    @property
    def cost(self) -> int:
        """Patches the encoder has to look at."""
        return self.grid[0] * self.grid[1]


class PixelMaker:
    """Makes model input from RGB pictures; holds no state that a call changes."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        settings = checkpoint.preprocessing
        self.naflex = checkpoint.naflex
        self.patch_size = checkpoint.patch_size
        self.max_num_patches = checkpoint.max_num_patches
        self.image_size = checkpoint.image_size
        self.resample = Image.Resampling(settings["resample"])
        self.table = normalise_table(settings)

    def make(self, picture: Image.Image, max_num_patches: int = 0) -> Pixels:
        """The input for `picture`, which must be RGB. `max_num_patches` 0 means the checkpoint's
        own; a fixed resolution knows no other."""
        if not self.naflex:
            side = self.image_size
            squashed = np.asarray(picture.resize((side, side), self.resample))
            across = side // self.patch_size
            return Pixels(squashed, (across, across), across**2)
        most = max_num_patches or self.max_num_patches
        grid = grid_for(picture.height, picture.width, self.patch_size, most)
        size = (grid[1] * self.patch_size, grid[0] * self.patch_size)
        patches = self._patches(picture.resize(size, self.resample), grid)
        return Pixels(patches, grid, max(most, len(patches)))

    def _patches(self, picture: Image.Image, grid: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """(height, width, 3) → (patches, patch · patch · 3), each patch row by row."""
        down, across, side = *grid, self.patch_size
        strips = np.asarray(picture).reshape(down, side, across, side * 3)
        return strips.transpose(0, 2, 1, 3).reshape(down * across, side * side * 3)


def normalise_table(settings: dict[str, Any]) -> npt.NDArray[np.float32]:
    """The float32 value of each of the 256 levels, shape (256,). Rounded where the reference
    rounds: the product in float64, then float32 from there on."""
    factor: float = settings["rescale_factor"]
    levels = (np.arange(256, dtype=np.float64) * factor).astype(np.float32)
    mean, std = _first(settings["image_mean"]), _first(settings["image_std"])
    return (levels - np.float32(mean)) / np.float32(std)


def _first(value: float | list[float]) -> float:
    """One number for all channels; `check` refuses channels that differ."""
    return value[0] if isinstance(value, list) else value


@functools.lru_cache(maxsize=4096)
def grid_for(height: int, width: int, patch_size: int, max_num_patches: int) -> tuple[int, int]:
    """Patches down and across for a picture of that many pixels. The largest grid of at most
    `max_num_patches` that the bisection finds, at least 1 × 1."""

    def patches(scale: float, side: int) -> int:
        return max(1, math.ceil(side * scale / patch_size))

    least, most = TOLERANCE / 10, 100.0
    while most - least >= TOLERANCE:
        scale = (least + most) / 2
        if patches(scale, height) * patches(scale, width) <= max_num_patches:
            least = scale
        else:
            most = scale
    return patches(least, height), patches(least, width)
