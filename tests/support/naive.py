"""A script as somebody writes it around transformers, with one thing done wrong if asked to.

Written apart from `litapi.quality.mistake`, which is judged with it: other calls of the library,
one item at a time.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import Siglip2Model
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil
from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

from litapi.checkpoint import DEMO, Checkpoint
from litapi.client import Embedded
from litapi.messages import Kind
from litapi.quality.source import Source, plain
from litapi.scoring import Array, Sigmoid


@dataclass(frozen=True)
class Naive:
    """Embeds with the demo checkpoint; a field that is changed is a mistake."""

    pad: int | None = 0
    lower: bool = True
    bos: bool = False
    upright: bool = True
    resample: int = Image.Resampling.BILINEAR
    aspect: bool = True
    masked: bool = True

    def source(self) -> Source:
        """With the scale and bias of the demo."""
        demo = Checkpoint.open(DEMO)
        own = Sigmoid(demo.logit_scale, demo.logit_bias)
        return Source(demo.name, "naive", self.ask, own)

    def ask(self, kind: Kind, items: Sequence[Any]) -> Embedded:
        return plain(self.texts(items) if kind == "text" else self.pictures(items))

    def texts(self, texts: Sequence[str]) -> Array:
        model, tokenizer = _model(), Siglip2Tokenizer.from_pretrained(DEMO)
        if not self.lower:
            tokenizer.backend_tokenizer.normalizer = tokenizer.backend_tokenizer.normalizer[1]
        rows = []
        for text in texts:
            ids = [2] * self.bos + list(tokenizer(text)["input_ids"])
            if self.pad is not None:
                ids += [self.pad] * (64 - len(ids))
            found = model.text_model(input_ids=torch.tensor([ids]))
            rows.append(found.pooler_output[0].detach().numpy())
        return _unit(rows)

    def pictures(self, pictures: Sequence[bytes]) -> Array:
        model = _model()
        processor = Siglip2ImageProcessorPil.from_pretrained(DEMO, resample=self.resample)
        rows = []
        for data in pictures:
            picture: Image.Image = Image.open(io.BytesIO(data))
            picture = ImageOps.exif_transpose(picture) if self.upright else picture
            picture = picture if self.aspect else picture.resize((256, 256), 2)
            made = processor(images=picture.convert("RGB"), return_tensors="pt")
            mask = made["pixel_attention_mask"]
            found = model.vision_model(
                made["pixel_values"],
                mask if self.masked else torch.ones_like(mask),
                made["spatial_shapes"],
            )
            rows.append(found.pooler_output[0].detach().numpy())
        return _unit(rows)


def _model() -> Siglip2Model:
    return Siglip2Model.from_pretrained(DEMO, dtype=torch.float32).eval()


def _unit(rows: list[Array]) -> Array:
    found = np.array(rows, np.float64)
    unit: Array = found / np.linalg.norm(found, axis=-1, keepdims=True)
    return unit
