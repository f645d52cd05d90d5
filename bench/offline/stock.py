"""What else runs transformers' own tower on a CPU: OpenVINO and ONNX Runtime, as they come.

The tower is converted or exported and run as their documentation shows. Values and masks are made
by transformers' processor, and the pooled output is made unit length by numpy. OpenVINO chooses
threads and streams by itself; its telemetry is kept out here as well.
"""

from __future__ import annotations

import importlib
import tempfile
import warnings
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.offline.tower import PlainTower, Vectors
from litapi.checkpoint import Checkpoint, CheckpointError
from litapi.model.engines.runtime import openvino

MISSING = "it is not installed: pip install onnx onnxruntime"
NAFLEX = "torch exports no NaFlex tower"  # ONNX has no operator that resizes positions alike


class Rival:
    """One tower in another engine."""

    _run: Any

    def __init__(self, checkpoint: Checkpoint, name: str) -> None:
        self._plain = PlainTower(checkpoint, name)
        model = self._plain.model
        self._tower: nn.Module = model.text_model if name == "text" else model.vision_model

    @abstractmethod
    def _rows(self, inputs: dict[str, Any]) -> Vectors: ...

    def batch(self, items: int) -> Callable[[], Any]:
        """Over arrays that are ready."""
        inputs = {name: value.numpy() for name, value in self._plain.inputs(items).items()}

        def embed() -> Vectors:
            rows = self._rows(inputs)
            unit: Vectors = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
            return unit

        return embed


class StockTower(Rival):
    """OpenVINO's; `precision` is float32, or bfloat16, which it takes where the CPU has it."""

    def __init__(self, checkpoint: Checkpoint, name: str, precision: str) -> None:
        super().__init__(checkpoint, name)
        ov = openvino()
        with torch.no_grad():
            model = ov.convert_model(self._tower, example_input=self._plain.inputs(2))
        chosen = ov.Type.bf16 if precision == "bfloat16" else ov.Type.f32
        self._run = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": chosen})

    def _rows(self, inputs: dict[str, Any]) -> Vectors:
        rows: Vectors = self._run(inputs)["pooler_output"]
        return rows


class OnnxTower(Rival):
    """ONNX Runtime's, in float32: its kernels for a CPU know no bfloat16.

    No requirements file has it, for nothing but this comparison needs it. Raises CheckpointError,
    with the reason, where it does not run.
    """

    def __init__(self, checkpoint: Checkpoint, name: str, threads: int) -> None:
        if name == "image" and checkpoint.naflex:
            raise CheckpointError(NAFLEX)
        try:
            runtime: Any = [importlib.import_module(one) for one in ("onnx", "onnxruntime")][-1]
        except ImportError:
            raise CheckpointError(MISSING) from None
        super().__init__(checkpoint, name)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "tower.onnx")
            self._export(path)
            self._run = runtime.InferenceSession(path, options, ["CPUExecutionProvider"])

    def _rows(self, inputs: dict[str, Any]) -> Vectors:
        rows: Vectors = self._run.run(None, inputs)[0]
        return rows

    def _export(self, path: Path) -> None:
        inputs = self._plain.inputs(2)
        names, any_batch = list(inputs), {name: {0: "items"} for name in (*inputs, "pooled")}
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns of every number that is a constant
            torch.onnx.export(
                Pooled(self._tower, names),
                tuple(inputs.values()),
                path,
                input_names=names,
                output_names=["pooled"],
                dynamic_axes=any_batch,
                dynamo=False,  # which would take another package
            )


class Pooled(nn.Module):
    """The one output of a tower that is compared."""

    def __init__(self, tower: nn.Module, names: list[str]) -> None:
        super().__init__()
        self._tower, self._names = tower, names

    def forward(self, *inputs: Tensor) -> Tensor:
        pooled: Tensor = self._tower(**dict(zip(self._names, inputs, strict=True))).pooler_output
        return pooled
