"""What transformers itself says a vector should be, and what the known mistakes would make of it.

Independent of the service: the full model through AutoModel, the text rules written out once more
by hand. The mistakes are those seen in other servers, so that a wrong vector can be named.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

Vector = np.ndarray[Any, np.dtype[np.float32]]
LENGTH = 64
EOS = 1


class Reference:
    """A checkpoint folder run by transformers in float32, one item at a time."""

    def __init__(self, folder: Path) -> None:
        self._model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._processor = AutoImageProcessor.from_pretrained(folder, backend="pil")

    def text(self, text: str) -> Vector:
        return self._pool(self._padded(self._ids(text.lower())))

    def mistakes(self, text: str) -> dict[str, Vector]:
        """The vector of a text under each known mistake."""
        ids = self._ids(text.lower())
        padded = self._padded(ids)
        mask = [1] * len(ids) + [0] * (LENGTH - len(ids))
        return {
            "not padded to 64": self._pool(ids),
            "padded with id 1": self._pool(self._padded(ids, pad=1)),
            "padded on the left": self._pool([0] * (LENGTH - len(ids)) + ids),
            "attention mask passed": self._pool(padded, mask),
            "not lower-cased": self._pool(self._padded(self._ids_as_is(text))),
            "cut at 20 tokens": self._pool(self._padded([*ids[:19], EOS])),
        }

    def image(self, picture: Image.Image) -> Vector:
        inputs = self._processor(images=picture, return_tensors="pt")
        with torch.inference_mode():
            return _unit(self._model.get_image_features(**inputs).pooler_output)

    def _ids(self, text: str) -> list[int]:
        return _ended(self._tokenizer(text, add_special_tokens=False, padding=False)["input_ids"])

    def _ids_as_is(self, text: str) -> list[int]:
        """Ids of a text without the lower-casing that the tokenizer does by itself."""
        backend = self._tokenizer.backend_tokenizer
        normalizer = backend.normalizer
        try:
            backend.normalizer = None
            return _ended(backend.encode(text.replace(" ", "▁"), add_special_tokens=False).ids)
        finally:
            backend.normalizer = normalizer

    @staticmethod
    def _padded(ids: list[int], pad: int = 0) -> list[int]:
        return ids + [pad] * (LENGTH - len(ids))

    def _pool(self, ids: list[int], mask: list[int] | None = None) -> Vector:
        inputs = {"input_ids": torch.tensor([ids])}
        if mask is not None:
            inputs["attention_mask"] = torch.tensor([mask])
        with torch.inference_mode():
            return _unit(self._model.get_text_features(**inputs).pooler_output)


def _ended(ids: list[int]) -> list[int]:
    return [*[one for one in ids if one != EOS][: LENGTH - 1], EOS]


def _unit(pooled: torch.Tensor) -> Vector:
    row = pooled[0].double()
    return np.asarray((row / row.norm()).numpy(), np.float32)


def cosine(one: Vector, other: Vector) -> float:
    """Cosine of two vectors, in double precision."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
