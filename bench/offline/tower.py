"""The towers that are measured, loaded, with inputs for them: random, as their values cost nothing.

Both kinds of each: siglit's own encoder, and `AutoModel`, transformers' whole model in float32 as a
plain service loads it, on what transformers' processor makes. Timed is the way from model input on
the host (ids, levels) to unit vectors on the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from bench.offline.flop import image_flop, text_flop
from litapi.checkpoint import Checkpoint
from litapi.model.encoder import ImageEncoder, TextEncoder
from litapi.model.pixels import PixelMaker

TOWERS = ("text", "image")
BASELINE = "AutoModel"
PICTURES = 8  # different ones; larger batches hold them several times

Vectors = npt.NDArray[np.float32]


class Tower(Protocol):
    """What a measurement needs of any."""

    encoder: Any
    flop: int  # of one item

    def batch(self, items: int) -> Callable[[], Any]:
        """To vectors of so many inputs, each time it is called."""


class TextTower:
    """Texts of 64 tokens, as every text has."""

    def __init__(self, checkpoint: Checkpoint, **load: Any) -> None:
        """`load` are the options of TextEncoder.load."""
        self.encoder = TextEncoder.load(checkpoint, **load)
        self.flop = text_flop(_config(checkpoint).text_config)
        self._checkpoint = checkpoint

    def batch(self, items: int) -> Callable[[], Any]:
        """Over token ids."""
        ids = token_ids(self._checkpoint, items)
        return lambda: self.encoder.embed(ids)


class ImageTower:
    """Square pictures, which have as many patches as the checkpoint allows."""

    def __init__(self, checkpoint: Checkpoint, **load: Any) -> None:
        """`load` are the options of ImageEncoder.load."""
        self.encoder = ImageEncoder.load(checkpoint, **load)
        maker = PixelMaker(checkpoint)
        self._pixels = [maker.make(one) for one in pictures(checkpoint)]
        self.flop = image_flop(_config(checkpoint).vision_config, self._pixels[0].cost)

    def batch(self, items: int) -> Callable[[], Any]:
        """Over levels of pixels."""
        pixels = [self._pixels[i % PICTURES] for i in range(items)]
        return lambda: self.encoder.embed(pixels)


class PlainTower:
    """`get_text_features` or `get_image_features`, padding included."""

    def __init__(self, checkpoint: Checkpoint, name: str) -> None:
        from transformers import AutoImageProcessor, AutoModel
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.model: Any = AutoModel.from_pretrained(checkpoint.folder, dtype=torch.float32).eval()
        if name == "text":
            self._embed = self.model.get_text_features
            ids = torch.from_numpy(token_ids(checkpoint, PICTURES))
            self._inputs = [{"input_ids": row[None]} for row in ids]
            return
        self._embed = self.model.get_image_features
        processor = AutoImageProcessor.from_pretrained(checkpoint.folder, backend="pil")
        self._inputs = [
            dict(processor(images=[one], return_tensors="pt")) for one in pictures(checkpoint)
        ]

    def inputs(self, items: int) -> dict[str, torch.Tensor]:
        """Of the model, for so many."""
        chosen = [self._inputs[i % PICTURES] for i in range(items)]
        return {name: torch.cat([one[name] for one in chosen]) for name in chosen[0]}

    def batch(self, items: int) -> Callable[[], Any]:
        """Over tensors that are ready."""
        inputs = self.inputs(items)

        def embed() -> Vectors:
            with torch.inference_mode():
                rows = self._embed(**inputs).pooler_output
                unit: Vectors = (rows / rows.norm(dim=-1, keepdim=True)).numpy()
                return unit

        return embed


def load(
    checkpoint: Checkpoint,
    name: str,
    device: str,
    precision: str,
    threads: int,
    compiled: bool = False,
    engine: str = "auto",
) -> Tower:
    """siglit's, either of TOWERS.

    Raises CheckpointError where the machine does not do what is asked.
    """
    kind = TextTower if name == "text" else ImageTower
    options = {"precision": precision, "threads": threads, "compile": compiled, "engine": engine}
    return kind(checkpoint, device=device, **options)


def _config(checkpoint: Checkpoint) -> Any:
    """transformers' configuration of both towers."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(checkpoint.folder)


def token_ids(checkpoint: Checkpoint, items: int) -> npt.NDArray[np.int64]:
    """Of so many texts; the first are the same whatever the number."""
    shape = (items, checkpoint.text_length)
    return np.random.default_rng(0).integers(5, checkpoint.vocabulary, shape)


def pictures(checkpoint: Checkpoint) -> list[Image.Image]:
    """Squares of noise: what is in a picture costs nothing, how many patches it fills does."""
    side = checkpoint.image_size
    levels = np.random.default_rng(0).integers(256, size=(PICTURES, side, side, 3), dtype=np.uint8)
    return [Image.fromarray(one) for one in levels]
