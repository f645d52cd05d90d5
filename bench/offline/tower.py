"""The towers that are measured, loaded, with inputs for them: random, as their values cost nothing.

siglit's own encoder; `AutoModel`, transformers' whole model in float32 as a plain service loads it,
on what transformers' processor makes; and that model's tower converted for OpenVINO or exported to
ONNX Runtime and run as their documentation shows. Timed is the way from model input on
the host (ids, levels) to unit vectors on the host.
"""

from __future__ import annotations

import importlib
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from litapi.checkpoint import Checkpoint, CheckpointError
from litapi.model.encoder import ImageEncoder, TextEncoder
from litapi.model.engines.runtime import openvino
from litapi.model.pixels import PixelMaker

TOWERS = ("text", "image")
BASELINE = "AutoModel"
PICTURES = 8  # different ones; larger batches hold them several times

Vectors = npt.NDArray[np.float32]
MISSING = "it is not installed: pip install onnx onnxruntime"
NAFLEX = "torch exports no NaFlex tower"  # ONNX has no operator that resizes positions alike


class Tower:
    """siglit's own, with input for it: texts of 64 tokens, as every text has, or square pictures.

    Those have as many patches as the checkpoint allows. Raises CheckpointError where the machine
    does not do what is asked.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        name: str,
        device: str,
        precision: str,
        threads: int,
        compiled: bool = False,
        engine: str = "auto",
    ) -> None:
        from transformers import AutoConfig

        kind: Any = TextEncoder if name == "text" else ImageEncoder
        options = {"precision": precision, "threads": threads, "compile": compiled}
        self.encoder = kind.load(checkpoint, device=device, engine=engine, **options)
        config = AutoConfig.from_pretrained(checkpoint.folder)
        self._inputs: Callable[[int], Any]
        if name == "text":
            self.flop = text_flop(config.text_config)  # of one item
            self._inputs = partial(token_ids, checkpoint)
            return
        maker = PixelMaker(checkpoint)
        pixels = [maker.make(one) for one in pictures(checkpoint)]
        self.flop = image_flop(config.vision_config, pixels[0].cost)
        self._inputs = lambda items: [pixels[i % PICTURES] for i in range(items)]

    def batch(self, items: int) -> Callable[[], Any]:
        """To vectors of so many token ids or levels of pixels, each time it is called."""
        inputs = self._inputs(items)
        return lambda: self.encoder.embed(inputs)


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
        chosen = [self._inputs[i % PICTURES] for i in range(items)]
        return {name: torch.cat([one[name] for one in chosen]) for name in chosen[0]}

    def batch(self, items: int) -> Callable[[], Any]:
        inputs = self.inputs(items)

        def embed() -> Vectors:
            with torch.inference_mode():
                rows = self._embed(**inputs).pooler_output
                unit: Vectors = (rows / rows.norm(dim=-1, keepdim=True)).numpy()
                return unit

        return embed


def token_ids(checkpoint: Checkpoint, items: int) -> npt.NDArray[np.int64]:
    """Of so many texts; the first are the same whatever the number."""
    shape = (items, checkpoint.text_length)
    return np.random.default_rng(0).integers(5, checkpoint.vocabulary, shape)


def pictures(checkpoint: Checkpoint) -> list[Image.Image]:
    """Squares of noise: what is in a picture costs nothing, how many patches it fills does."""
    side = checkpoint.image_size
    levels = np.random.default_rng(0).integers(256, size=(PICTURES, side, side, 3), dtype=np.uint8)
    return [Image.fromarray(one) for one in levels]


def text_flop(config: Any) -> int:
    """Of one text; `config` is transformers' Siglip(2)TextConfig."""
    width, mlp = config.hidden_size, config.intermediate_size
    positions = config.max_position_embeddings
    layers = (config.num_hidden_layers - 1) * _layer(width, mlp, positions, positions)
    return int(layers + _layer(width, mlp, positions, 1) + 2 * width * config.projection_size)


def image_flop(config: Any, patches: int) -> int:
    """Of one picture of so many patches; `config` is transformers' Siglip(2)VisionConfig."""
    width, mlp = config.hidden_size, config.intermediate_size
    embedding = 2 * patches * config.num_channels * config.patch_size**2 * width
    layers = config.num_hidden_layers * _layer(width, mlp, patches, patches)
    # The head is such a layer, but its query is the probe's: once for a batch, not for a picture.
    return int(embedding + layers + _layer(width, mlp, patches, 1) - 2 * width**2)


def _layer(width: int, mlp: int, seen: int, computed: int) -> int:
    """Keys and values of the positions `seen`; all the rest for those `computed`."""
    projections = 4 * seen * width**2 + 4 * computed * width**2
    return projections + 4 * seen * computed * width + 4 * computed * width * mlp


class Rival:
    """transformers' tower in another engine, which `_run` runs on named arrays."""

    _run: Callable[[dict[str, Any]], Vectors]

    def __init__(self, checkpoint: Checkpoint, name: str) -> None:
        self._plain = PlainTower(checkpoint, name)
        model = self._plain.model
        self._tower: nn.Module = model.text_model if name == "text" else model.vision_model

    def batch(self, items: int) -> Callable[[], Any]:
        inputs = {name: value.numpy() for name, value in self._plain.inputs(items).items()}

        def embed() -> Vectors:
            rows = self._run(inputs)
            unit: Vectors = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
            return unit

        return embed


class StockTower(Rival):
    """OpenVINO's; `precision` is float32, or bfloat16, which it takes where the CPU has it.

    It chooses threads and streams by itself; its telemetry is kept out here as well.
    """

    def __init__(self, checkpoint: Checkpoint, name: str, precision: str) -> None:
        super().__init__(checkpoint, name)
        ov = openvino()
        with torch.no_grad():
            model = ov.convert_model(self._tower, example_input=self._plain.inputs(2))
        chosen = ov.Type.bf16 if precision == "bfloat16" else ov.Type.f32
        compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": chosen})
        self._run = lambda inputs: compiled(inputs)["pooler_output"]


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
            session = runtime.InferenceSession(path, options, ["CPUExecutionProvider"])
        self._run = lambda inputs: session.run(None, inputs)[0]

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
