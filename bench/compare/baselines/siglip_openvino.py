"""The plain service's model converted for OpenVINO, as its documentation shows, and nothing else.

For a fixed resolution: a traced NaFlex tower knows one batch size. The precision is the one that
OpenVINO chooses, bfloat16 where the CPU computes in it, unless PRECISION names float32. Threads are
the share that every system gets.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn

from bench.compare.baselines.siglip import Siglip
from litapi.model.engines.runtime import openvino


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
