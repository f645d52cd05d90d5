"""Own vectors against transformers' at the true sizes, with random weights: a table of figures.

    python -m tests.large_parity

Towers are built one at a time and never saved. The reference is transformers throughout: its
processor, its tokenizer's kind of ids, its forward in float32, its pooled output, made unit
length. In float32 own vectors are made one item at a time as well as all together; the worst row
counts.
"""

import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from litapi.checkpoint import Checkpoint
from litapi.model.encoder import ImageEncoder, TextEncoder, choose_precision
from litapi.model.engines.conversion import converted_images, converted_text
from litapi.model.engines.openvino_engine import OpenVinoImages, OpenVinoText
from litapi.model.engines.torch_engine import TorchImages, TorchText
from litapi.model.pixels import PixelMaker
from tests.support.checkpoint import SIZES, CheckpointMaker
from tests.support.inputs import cosines

Load = Callable[[str], Any]
PRECISIONS = ("float32", *sorted({choose_precision("auto", "cpu")} - {"float32"}))
NAMES = ("base-patch16-224", "so400m-patch16-naflex")
SHAPES = ((640, 480), (480, 720))  # width, height: unlike numbers of patches


@dataclass(frozen=True)
class Parity:
    """How far own vectors are from the reference's: the worst row."""

    size: str
    tower: str
    precision: str
    cosine: float
    difference: float
    parameters: int
    seconds: float

    @property
    def holds(self) -> bool:
        """The bounds: float32 to rounding, bfloat16 to its own."""
        if self.precision == "float32":
            return self.cosine >= 0.99999 and self.difference <= 1e-4
        return self.cosine >= 0.999


def measure(size: str, tower: str) -> list[Parity]:
    """Parity of one tower in float32 and then in bfloat16, against float32."""
    maker = CheckpointMaker.named(size)
    model: Any = maker.tower(tower)
    items, inputs, load = texts(size, model) if tower == "text" else images(maker, model)
    with torch.inference_mode():
        pooled = model(**inputs).pooler_output
    expected = (pooled / pooled.norm(dim=-1, keepdim=True)).numpy()
    found = []
    for precision in PRECISIONS:
        start = time.perf_counter()
        encoder = load(precision)
        rows = encoder.embed(items)
        if precision == "float32":
            alone = [encoder.embed(items[n : n + 1]) for n in range(len(items))]
            rows = np.concatenate([rows, *alone])
        repeated = np.tile(expected, (len(rows) // len(expected), 1))
        cosine, difference = cosines(rows, repeated).min(), np.abs(rows - repeated).max()
        seconds, name = time.perf_counter() - start, encoder.precision
        found.append(Parity(size, tower, name, cosine, difference, encoder.parameters, seconds))
    return found


def texts(size: str, model: Any) -> tuple[Any, Any, Load]:
    """Ids, what the reference takes, and the tower in a precision."""
    random = np.random.default_rng(3)
    ids = np.zeros((3, 64), dtype=np.int64)
    for row, length in zip(ids, (5, 20, 64), strict=True):
        row[: length - 1] = random.integers(5, SIZES[size].vocabulary, length - 1)
        row[length - 1] = 1
    made = converted_text(TorchText(model))
    return ids, {"input_ids": torch.from_numpy(ids)}, lambda p: TextEncoder(OpenVinoText(made, p))


def images(checkpoint: CheckpointMaker, model: Any) -> tuple[Any, Any, Load]:
    """The same for pictures."""
    pictures = [noise(*shape) for shape in SHAPES]
    with tempfile.TemporaryDirectory() as folder:
        maker = PixelMaker(Checkpoint.open(checkpoint.write_outline(Path(folder))))
    made = converted_images(TorchImages(model, maker))
    inputs = reference_inputs(pictures, checkpoint.size.naflex)
    pixels = [maker.make(picture) for picture in pictures]
    return pixels, inputs, lambda p: ImageEncoder(OpenVinoImages(made, p))


def noise(width: int, height: int) -> Image.Image:
    levels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def reference_inputs(pictures: list[Image.Image], naflex: bool) -> Any:
    """What transformers' PIL processors make of the pictures."""
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    side = {"height": 224, "width": 224}
    kind = Siglip2ImageProcessorPil() if naflex else SiglipImageProcessorPil(resample=2, size=side)
    return kind(images=pictures, return_tensors="pt")


def main() -> int:
    """Print every figure; 1 where a bound does not hold."""
    print("| checkpoint | tower | M | precision | least cosine | largest difference | s | holds |")
    print("|---|---|---|---|---|---|---|---|")
    held = True
    for size, tower in itertools.product(NAMES, ("text", "image")):
        for found in measure(size, tower):
            held = held and found.holds
            print(
                f"| {found.size} | {found.tower} | {found.parameters / 1e6:.1f} "
                f"| {found.precision} | {found.cosine:.7f} | {found.difference:.1e} "
                f"| {found.seconds:.1f} | {'yes' if found.holds else 'NO'} |",
                flush=True,
            )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
