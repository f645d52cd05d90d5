"""Own vectors against transformers' at the true sizes, with random weights: a table of figures.

    python -m tests.large_parity

Towers are built one at a time and never saved. The reference is transformers throughout: its
processor, its tokenizer's kind of ids, its forward in float32, its pooled output, made unit
length. In float32 own vectors are made one item at a time as well as all together; the worst row
counts.
"""

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from litapi.checkpoint import Checkpoint
from litapi.model.encoder import ImageEncoder, TextEncoder, choose_precision
from litapi.model.engines.conversion import converted_images, converted_text
from litapi.model.engines.openvino_engine import OpenVinoImages, OpenVinoText
from litapi.model.engines.torch_engine import TorchImages, TorchText
from litapi.model.pixels import PixelMaker
from tests.support.checkpoint import SIZES, CheckpointMaker

Vectors = npt.NDArray[np.float32]
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
    return measure_text(size, model) if tower == "text" else measure_image(size, model, maker)


def measure_text(size: str, model: Any) -> list[Parity]:
    random = np.random.default_rng(3)
    ids = np.zeros((3, 64), dtype=np.int64)
    for row, length in zip(ids, (5, 20, 64), strict=True):
        row[: length - 1] = random.integers(5, SIZES[size].vocabulary, length - 1)
        row[length - 1] = 1
    with torch.inference_mode():
        expected = unit(model(input_ids=torch.from_numpy(ids)).pooler_output)
    found = []
    made = converted_text(TorchText(model))
    for precision in PRECISIONS:
        start = time.perf_counter()
        encoder = TextEncoder(OpenVinoText(made, precision))
        rows = encoder.embed(ids)
        if precision == "float32":
            rows = np.concatenate([rows, *(encoder.embed(ids[row : row + 1]) for row in range(3))])
        found.append(parity(size, "text", encoder, rows, expected, start))
    return found


def measure_image(size: str, model: Any, checkpoint: CheckpointMaker) -> list[Parity]:
    pictures = [noise(*shape) for shape in SHAPES]
    with torch.inference_mode():
        inputs = reference_inputs(pictures, checkpoint.size.naflex)
        expected = unit(model(**inputs).pooler_output)
    with tempfile.TemporaryDirectory() as folder:
        maker = PixelMaker(Checkpoint.open(checkpoint.write_outline(Path(folder))))
    pixels = [maker.make(picture) for picture in pictures]
    found = []
    made = converted_images(TorchImages(model, maker))
    for precision in PRECISIONS:
        start = time.perf_counter()
        encoder = ImageEncoder(OpenVinoImages(made, precision))
        rows = encoder.embed(pixels)
        if precision == "float32":
            rows = np.concatenate([rows, *(encoder.embed([picture]) for picture in pixels)])
        found.append(parity(size, "image", encoder, rows, expected, start))
    return found


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


def unit(pooled: torch.Tensor) -> Vectors:
    vectors: Vectors = (pooled / pooled.norm(dim=-1, keepdim=True)).numpy()
    return vectors


def parity(
    size: str,
    tower: str,
    encoder: TextEncoder | ImageEncoder,
    rows: Vectors,
    expected: Vectors,
    start: float,
) -> Parity:
    """The worst of `rows`, which stand for `expected` once or several times over."""
    repeated = np.tile(expected, (len(rows) // len(expected), 1))
    return Parity(
        size,
        tower,
        encoder.precision,
        float((rows * repeated).sum(axis=-1).min()),
        float(np.abs(rows - repeated).max()),
        encoder.parameters,
        time.perf_counter() - start,
    )


def main() -> int:
    """Print every figure; 1 where a bound does not hold."""
    print("| checkpoint | tower | M | precision | least cosine | largest difference | s | holds |")
    print("|---|---|---|---|---|---|---|---|")
    held = True
    for size in NAMES:
        for tower in ("text", "image"):
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
