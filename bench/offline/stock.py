"""Stock OpenVINO: transformers' own tower, converted and run as its documentation shows.

Values and masks are made by transformers' processor, the pooled output is made unit length by
numpy, and OpenVINO chooses threads and streams by itself. Its telemetry is kept out here as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bench.offline.tower import PlainTower, Vectors
from litapi.checkpoint import Checkpoint
from litapi.model.engines.runtime import openvino


class StockTower:
    """One tower; `precision` is float32, or bfloat16, which OpenVINO takes where the CPU has it."""

    def __init__(self, checkpoint: Checkpoint, name: str, precision: str) -> None:
        ov = openvino()
        self._plain = PlainTower(checkpoint, name)
        tower = self._plain.model.text_model if name == "text" else self._plain.model.vision_model
        with torch.no_grad():
            model = ov.convert_model(tower, example_input=self._plain.inputs(2))
        chosen = ov.Type.bf16 if precision == "bfloat16" else ov.Type.f32
        self._run = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": chosen})

    def batch(self, items: int) -> Callable[[], Any]:
        """Over arrays that are ready."""
        inputs = {name: value.numpy() for name, value in self._plain.inputs(items).items()}

        def embed() -> Vectors:
            rows: Vectors = self._run(inputs)["pooler_output"]
            unit: Vectors = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
            return unit

        return embed
