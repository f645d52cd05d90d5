"""What transformers makes of a few probes: the measure of every engine and of the pixels.

It needs torch, so an engine that serves without torch keeps it beside its model. The probes are
kept as well: they must not change with the version of a library that draws them. Noise, which int8
is calibrated on as well, reaches more of a tower's range than any few captions or drawings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from litapi.checkpoint import Checkpoint
from litapi.model.pixels import PixelMaker, Pixels
from litapi.model.tokens import EOS

Vectors = npt.NDArray[np.float32]
TEXT_TOKENS = (2, 9, 30, 64)  # of the probe texts, EOS included
PICTURE_SIZES = ((61, 97), (80, 40))  # width, height: a portrait and a landscape of unlike grids
PATCHES = 16  # enough for two unlike grids, and cheap on the largest checkpoint
CLOUD_SIZES = ((224, 224), (320, 180), (160, 288))  # width, height: unlike grids for NaFlex
SCALES = (4, 8, 16, 32, 64, 128, 256)  # squares of one colour across a cloud


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


def probe_values(checkpoint: Checkpoint) -> list[Vectors]:
    """transformers' values for the probe pictures, without padding: shaped as `Pixels.patches`."""
    processor, found = load_reference_processor(checkpoint), []
    for picture in probe_pictures():
        made = processor(images=picture, return_tensors="np")
        values: Vectors = made["pixel_values"][0]
        if checkpoint.naflex:
            found.append(values[: int(made["pixel_attention_mask"][0].sum())])
        else:
            found.append(values.transpose(1, 2, 0))
    return found


def load_reference_processor(checkpoint: Checkpoint) -> Any:
    """transformers' PIL image processor for `checkpoint`, with the settings of its folder. Named
    outright: which one AutoImageProcessor takes depends on whether torchvision is installed. It
    loads torch."""
    if checkpoint.naflex:
        from transformers.models.siglip2 import image_processing_pil_siglip2 as siglip2

        return siglip2.Siglip2ImageProcessorPil.from_pretrained(checkpoint.folder)
    from transformers.models.siglip import image_processing_pil_siglip as siglip

    return siglip.SiglipImageProcessorPil.from_pretrained(checkpoint.folder)


def unit(rows: Vectors) -> Vectors:
    """Unit length in float32, whatever a tower computes in."""
    found: Vectors = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
    return found


def near(rows: Vectors, vectors: Vectors) -> bool:
    """Whether rows point where the unit vectors do, by far: damage is meant, not rounding."""
    lengths = np.linalg.norm(rows, axis=-1)
    return bool(((rows * vectors).sum(axis=-1) >= 0.9 * lengths).all() and lengths.all())


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
    return [_cloud(random, CLOUD_SIZES[number % len(CLOUD_SIZES)]) for number in range(count)]


def _cloud(random: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    levels = np.zeros((size[1], size[0], 3))
    for scale in SCALES:
        noise = Image.fromarray(random.integers(0, 256, (scale, scale, 3), dtype=np.uint8))
        levels += np.asarray(noise.resize(size, Image.Resampling.BICUBIC)) / scale**0.5
    low, high = levels.min(), levels.max()
    return Image.fromarray(((levels - low) * (255 / (high - low))).astype(np.uint8))
