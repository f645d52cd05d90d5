"""A tower of torch's as OpenVINO takes it, with all that serving it would else need torch for.

The graph begins at ids or at uint8 levels and ends at the pooled output, for any number of items;
the table of levels is a part of it. The last layer of the text tower stays computed for one
position. NaFlex takes any grid: the rows of the resized position table and the mask are inputs.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from litapi.checkpoint import Checkpoint
from litapi.model.engines.converted import Converted
from litapi.model.engines.runtime import openvino
from litapi.model.engines.torch_engine import TorchImages, TorchText
from litapi.model.probes import probe_values

log = logging.getLogger("siglit.conversion")

ANY = -1


class Graph(nn.Module):
    """A tower with what comes before its body; for images, their table of levels as well."""

    table: Tensor

    def __init__(self, tower: TorchText | TorchImages) -> None:
        super().__init__()
        self.embeddings = tower.model.embeddings
        self.body = tower.body
        if isinstance(tower, TorchImages):
            self.register_buffer("table", tower.table)


class TextGraph(Graph):
    """Ids (n, 64) → (n, dim)."""

    def forward(self, ids: Tensor) -> Tensor:
        pooled: Tensor = self.body(self.embeddings(input_ids=ids))
        return pooled


class SquareGraph(Graph):
    """Levels (n, height, width, 3) → (n, dim)."""

    def forward(self, levels: Tensor) -> Tensor:
        values = self.table[levels.int()].permute(0, 3, 1, 2)
        pooled: Tensor = self.body(self.embeddings(values))
        return pooled


class NaflexGraph(Graph):
    """Levels (n, length, patch · patch · 3), positions (n, length, width), mask → (n, dim)."""

    def forward(self, levels: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        hidden = self.embeddings.patch_embedding(self.table[levels.int()]) + positions
        pooled: Tensor = self.body(hidden, mask)
        return pooled


def converted_text(tower: TorchText) -> Converted:
    """From a tower in float32 on the CPU, whose weights it shares."""
    length = int(tower.model.config.max_position_embeddings)
    example = torch.ones((2, length), dtype=torch.int64)
    model = _traced(TextGraph(tower), (example,), [(ANY, length)])
    return Converted(model, tower.parameters, tower.dim, tower.probes())


def converted_images(tower: TorchImages) -> Converted:
    """From a tower in float32 on the CPU, whose weights it shares."""
    if not tower.naflex:
        square = int(tower.model.config.image_size)
        levels = torch.zeros((2, square, square, 3), dtype=torch.uint8)
        model = _traced(SquareGraph(tower), (levels,), [(ANY, square, square, 3)])
        return Converted(model, tower.parameters, tower.dim, tower.probes())
    numbers = int(tower.model.config.patch_size) ** 2 * 3
    mask = torch.ones((2, 16), dtype=torch.int64)
    mask[1, 9:] = 0  # a mask of ones alone would be left out of the graph
    levels = torch.zeros((2, 16, numbers), dtype=torch.uint8)
    example = (levels, torch.zeros((2, 16, tower.dim)), mask)
    shapes = [(ANY, ANY, numbers), (ANY, ANY, tower.dim), (ANY, ANY)]
    model = _traced(NaflexGraph(tower), example, shapes)
    embeddings = tower.model.embeddings
    side = int(embeddings.position_embedding_size)
    positions = embeddings.position_embedding.weight.detach().numpy().reshape(side, side, -1)
    return Converted(model, tower.parameters, tower.dim, tower.probes(), positions)


def convert(checkpoint: Checkpoint, kind: str) -> Converted:
    """One tower of `checkpoint`. Raises CheckpointError where it cannot be loaded."""
    if kind == "text":
        return converted_text(TorchText.load(checkpoint))
    made = converted_images(TorchImages.load(checkpoint))
    return replace(made, probes=replace(made.probes, values=_values(checkpoint)))


def _values(checkpoint: Checkpoint) -> list[npt.NDArray[np.float32]]:
    """What the image processor makes of the probe pictures; nothing where it cannot be used, which
    the check at start-up finds and explains."""
    try:
        return probe_values(checkpoint)
    except Exception:
        log.debug("the image processor cannot be used", exc_info=True)
        return []


def _traced(graph: nn.Module, example: tuple[Tensor, ...], shapes: list[tuple[int, ...]]) -> Any:
    ov = openvino()
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    # Tracing warns of every number that it takes for a constant; all of these are.
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        # Unchecked, for it would compute everything twice more; the probes check what is converted.
        traced = TorchScriptPythonDecoder(
            graph.eval(), example_input=example, trace_kwargs={"check_trace": False}
        )
        return ov.convert_model(
            traced, example_input=example, input=[ov.PartialShape(list(s)) for s in shapes]
        )
