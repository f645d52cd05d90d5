"""transformers' own way from texts and pictures to logits: for comparisons, never for serving."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn.functional import normalize

from litapi.checkpoint import Checkpoint
from litapi.model.probes import load_reference_processor
from litapi.model.tokens import LENGTH, load_reference

Array = npt.NDArray[np.floating[Any]]
Ids = list[int]
Inputs = Mapping[str, Any]
MakeIds = Callable[["Reference", str], Ids]
MakeInputs = Callable[["Reference", bytes], Inputs]


class Reference:
    """transformers' own model, tokenizer and image processor of one checkpoint, in float32."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        from transformers import Siglip2Model, SiglipModel

        kind = Siglip2Model if checkpoint.naflex else SiglipModel
        self._model: Any = kind.from_pretrained(checkpoint.folder, dtype=torch.float32).eval()
        self.checkpoint = checkpoint
        self.tokenizer: Any = load_reference(checkpoint)
        self.processor: Any = load_reference_processor(checkpoint)

    def ids(self, text: str) -> Ids:
        """The 64 ids of a text."""
        made = self.tokenizer([text], padding="max_length", truncation=True, max_length=LENGTH)
        return list(made["input_ids"][0])

    def inputs(self, picture: Image.Image, **changed: Any) -> dict[str, Any]:
        """Model input of an upright picture."""
        return dict(self.processor(images=picture.convert("RGB"), return_tensors="pt", **changed))

    @torch.inference_mode()
    def texts(self, texts: Sequence[str], make: MakeIds) -> Array:
        """Unit vectors, each text alone, so that none is padded for another."""
        made = [torch.tensor([make(self, text)]) for text in texts]
        return self._rows([self._model.get_text_features(input_ids=ids) for ids in made])

    @torch.inference_mode()
    def pictures(self, pictures: Sequence[bytes], make: MakeInputs) -> Array:
        """Unit vectors, each picture alone."""
        made = [make(self, data) for data in pictures]
        return self._rows([self._model.get_image_features(**inputs) for inputs in made])

    def logits(self, texts: Array, pictures: Array) -> Array:
        """texts × pictures of unit vectors."""
        scale, bias = self._model.logit_scale.exp().item(), self._model.logit_bias.item()
        found: Array = scale * (texts @ pictures.T) + bias
        return found

    def _rows(self, features: Sequence[Any]) -> Array:
        pooled = torch.cat([getattr(one, "pooler_output", one) for one in features])
        rows: Array = normalize(pooled, dim=-1).numpy()
        return rows
