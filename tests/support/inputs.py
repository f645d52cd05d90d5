"""Pictures of unlike shapes and texts, as the towers take them, and cosines of what they give."""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from litapi.checkpoint import Checkpoint
from litapi.model.pixels import PixelMaker, Pixels
from litapi.model.tokens import Tokenizer

Vectors = npt.NDArray[np.float32]
SHAPES = [(40, 40), (90, 30), (30, 90), (64, 48), (7, 7), (200, 20)]


def pictures(many: int = len(SHAPES)) -> list[Image.Image]:
    random = np.random.default_rng(5)
    shapes = [SHAPES[number % len(SHAPES)] for number in range(many)]
    return [
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in shapes
    ]


def own_pixels(checkpoint: Checkpoint, many: int = len(SHAPES)) -> list[Pixels]:
    maker = PixelMaker(checkpoint)
    return [maker.make(picture) for picture in pictures(many)]


def own_ids(checkpoint: Checkpoint, texts: list[str]) -> npt.NDArray[np.int64]:
    return Tokenizer.load(checkpoint).encode(texts).ids


def own_items(checkpoint: Checkpoint, kind: str, many: int, patches: int = 0) -> Any:
    """Texts of unlike lengths, or pictures of unlike grids: of `patches`, or of as many as the
    checkpoint's, but every seventh of more."""
    if kind == "text":
        return own_ids(
            checkpoint, [f"{n} {'very ' * (7 * n % 40)}red circles" for n in range(many)]
        )
    maker = PixelMaker(checkpoint)
    allowed = [patches or (100 if n % 7 == 3 else 0) for n in range(many)]
    return [maker.make(*pair) for pair in zip(pictures(many), allowed, strict=True)]


def cosines(first: Vectors, second: Vectors) -> Vectors:
    result: Vectors = (first * second).sum(axis=-1)
    return result
