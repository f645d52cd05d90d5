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
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it
from transformers import AutoModel, AutoProcessor

from bench.compare.baselines.system import LOADED
from litapi.model.engines.runtime import openvino

Inputs = dict[str, torch.Tensor]


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

    @staticmethod
    def asked_for() -> Siglip:
        """Of the environment: CHECKPOINT is a folder; DEVICE the CPU, ENGINE torch by default."""
        kind = OpenVinoSiglip if os.environ.get("ENGINE") == "openvino" else Siglip
        return kind(os.environ["CHECKPOINT"], os.environ.get("DEVICE", "cpu"))

    def _prepare(self) -> None:
        """What another engine needs before the first call."""

    def texts(self, texts: Sequence[str]) -> list[list[float]]:
        """A unit vector for each text."""
        lower = [text.lower() for text in texts]
        how = {"padding": "max_length", "max_length": 64, "truncation": True}
        inputs = self._processor(text=lower, return_tensors="pt", **how)
        return self._unit("text", {"input_ids": inputs["input_ids"]})

    def images(self, images: Sequence[Image.Image]) -> list[list[float]]:
        """A unit vector for each RGB picture."""
        return self._unit("image", dict(self._processor(images=list(images), return_tensors="pt")))

    @torch.inference_mode()
    def _unit(self, tower: str, inputs: Inputs) -> list[list[float]]:
        there = {name: value.to(self._device) for name, value in inputs.items()}
        return F.normalize(self._pooled(tower, there).float(), dim=-1).tolist()

    def _pooled(self, tower: str, inputs: Inputs) -> torch.Tensor:
        rows: torch.Tensor = getattr(self._model, f"get_{tower}_features")(**inputs).pooler_output
        return rows


def opened(image: str) -> Image.Image:
    """The picture in base64, with or without the head of a data URI."""
    return Image.open(io.BytesIO(base64.b64decode(image.partition(",")[2] or image))).convert("RGB")


class OpenVinoSiglip(Siglip):
    """Both towers of a checkpoint folder, on the CPU."""

    def _prepare(self) -> None:
        side = self._model.config.vision_config.image_size
        ids, pixels = torch.ones((2, 64), dtype=torch.int64), torch.zeros((2, 3, side, side))
        self._towers = {
            "text": _compiled(self._model.text_model, {"input_ids": ids}),
            "image": _compiled(self._model.vision_model, {"pixel_values": pixels}),
        }

    def _pooled(self, tower: str, inputs: Inputs) -> torch.Tensor:
        # A request of its own for each call, as threads of Gunicorn call at the same time.
        request = self._towers[tower].create_infer_request()
        found = request.infer({name: value.numpy() for name, value in inputs.items()})
        return torch.from_numpy(found["pooler_output"].copy())


def _compiled(tower: nn.Module, example: Inputs) -> Any:
    ov = openvino()
    with torch.no_grad():
        model = ov.convert_model(tower, example_input=example)
    options = {"INFERENCE_NUM_THREADS": int(os.environ.get("OMP_NUM_THREADS", "0"))}
    if os.environ.get("PRECISION") == "float32":
        options["INFERENCE_PRECISION_HINT"] = ov.Type.f32
    return ov.compile_model(model, "CPU", options)
