"""A tower that is loaded, with inputs for it: random ones, for their values cost nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from PIL import Image

from bench.offline.flop import image_flop, text_flop
from litapi.checkpoint import Checkpoint
from litapi.model.encoder import ImageEncoder, TextEncoder
from litapi.model.pixels import PixelMaker

TOWERS = ("text", "image")


class Tower(Protocol):
    """What the sweep needs of either."""

    flop: int  # of one item
    encoder: Any

    def batch(self, items: int) -> Callable[[], object]:
        """To vectors of so many inputs, each time it is called."""


class TextTower:
    """Texts of 64 tokens, as every text has."""

    def __init__(self, checkpoint: Checkpoint, **load: Any) -> None:
        """`load` are the options of TextEncoder.load."""
        self.encoder = TextEncoder.load(checkpoint, **load)
        self.flop = text_flop(self.encoder.model.config)
        self._shape = (checkpoint.text_length, checkpoint.vocabulary)

    def batch(self, items: int) -> Callable[[], object]:
        """Over token ids."""
        length, vocabulary = self._shape
        ids = np.random.default_rng(0).integers(vocabulary, size=(items, length))
        return lambda: self.encoder.embed(ids)


class ImageTower:
    """Square pictures, which have as many patches as the checkpoint allows."""

    def __init__(self, checkpoint: Checkpoint, **load: Any) -> None:
        """`load` are the options of ImageEncoder.load."""
        self.encoder = ImageEncoder.load(checkpoint, **load)
        side = checkpoint.image_size
        levels = np.random.default_rng(0).integers(256, size=(side, side, 3), dtype=np.uint8)
        self._pixels = PixelMaker(checkpoint).make(Image.fromarray(levels))
        self.flop = image_flop(self.encoder.model.config, self._pixels.cost)

    def batch(self, items: int) -> Callable[[], object]:
        """Over one picture so many times."""
        pixels = [self._pixels] * items
        return lambda: self.encoder.embed(pixels)


def load(
    checkpoint: Checkpoint, name: str, device: str, precision: str, threads: int, compiled: bool
) -> Tower:
    """Either of TOWERS.

    Raises CheckpointError where the machine does not do what is asked.
    """
    kind = TextTower if name == "text" else ImageTower
    return kind(checkpoint, device=device, precision=precision, threads=threads, compile=compiled)
