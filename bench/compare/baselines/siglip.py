"""SigLIP2 through AutoModel and AutoProcessor, as a service of its own would load it.

Padded to 64 and lower-cased by the processor's caller, so that its vectors are right; both towers
in one model, and whatever comes is computed at once.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it
from transformers import AutoModel, AutoProcessor

from bench.compare.baselines.system import LOADED
from litapi.model.engines.runtime import openvino


class Siglip:
    """A checkpoint folder in float32 on the CPU, or in bfloat16 on a GPU."""

    def __init__(self, folder: str | Path, device: str = "cpu") -> None:
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        self._device = device
        self._model = AutoModel.from_pretrained(folder, dtype=dtype).eval().to(device)
        self._processor = AutoProcessor.from_pretrained(folder, backend="pil")
        self._prepare()
        self.texts(["the first call settles the tokenizer, before threads share it"])
        print(LOADED, flush=True)

    @classmethod
    def asked_for(cls) -> Self:
        """Of the environment: CHECKPOINT is a folder, DEVICE is the CPU where it is not set."""
        return cls(os.environ["CHECKPOINT"], os.environ.get("DEVICE", "cpu"))

    def _prepare(self) -> None:
        """What another engine needs before the first call."""

    def texts(self, texts: Sequence[str]) -> list[list[float]]:
        """A unit vector for each text."""
        inputs = self._processor(
            text=[text.lower() for text in texts],
            padding="max_length",
            max_length=64,
            truncation=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            ids = inputs["input_ids"].to(self._device)
            return _unit(self._text_rows(ids))

    def images(self, images: Sequence[Image.Image]) -> list[list[float]]:
        """A unit vector for each RGB picture."""
        inputs = self._processor(images=list(images), return_tensors="pt").to(self._device)
        with torch.inference_mode():
            return _unit(self._image_rows(inputs))

    def _text_rows(self, ids: torch.Tensor) -> torch.Tensor:
        rows: torch.Tensor = self._model.get_text_features(input_ids=ids).pooler_output
        return rows

    def _image_rows(self, inputs: Any) -> torch.Tensor:
        rows: torch.Tensor = self._model.get_image_features(**inputs).pooler_output
        return rows


def _unit(pooled: torch.Tensor) -> list[list[float]]:
    return F.normalize(pooled.float(), dim=-1).tolist()


def opened(image: str) -> Image.Image:
    """The picture in base64, with or without the head of a data URI."""
    return Image.open(io.BytesIO(base64.b64decode(image.partition(",")[2] or image))).convert("RGB")


class OpenVinoSiglip(Siglip):
    """Both towers of a checkpoint folder, on the CPU."""

    def _prepare(self) -> None:
        ids = torch.ones((2, 64), dtype=torch.int64)
        self._text = self._compiled(self._model.text_model, {"input_ids": ids})
        side = self._model.config.vision_config.image_size
        pixels = torch.zeros((2, 3, side, side))
        self._vision = self._compiled(self._model.vision_model, {"pixel_values": pixels})

    def _text_rows(self, ids: torch.Tensor) -> torch.Tensor:
        return _pooled(self._text, {"input_ids": ids})

    def _image_rows(self, inputs: Any) -> torch.Tensor:
        return _pooled(self._vision, dict(inputs))

    def _compiled(self, tower: nn.Module, example: dict[str, torch.Tensor]) -> Any:
        ov = openvino()
        with torch.no_grad():
            model = ov.convert_model(tower, example_input=example)
        options = {"INFERENCE_NUM_THREADS": int(os.environ.get("OMP_NUM_THREADS", "0"))}
        if os.environ.get("PRECISION") == "float32":
            options["INFERENCE_PRECISION_HINT"] = ov.Type.f32
        # A request of its own for each call, as threads of Gunicorn call at the same time.
        return ov.compile_model(model, "CPU", options)


def _pooled(compiled: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    request = compiled.create_infer_request()
    found = request.infer({name: value.numpy() for name, value in inputs.items()})
    return torch.from_numpy(found["pooler_output"].copy())


def asked_for() -> Siglip:
    """The model of the environment: ENGINE is openvino, or torch where it is not set."""
    kind = OpenVinoSiglip if os.environ.get("ENGINE") == "openvino" else Siglip
    return kind.asked_for()
