"""A second model of the same dimension and the same worth, for a change of models under load.

It is the demo checkpoint with the numbers of every vector in reverse order, so the right answers of
both are known from one, every cosine between a text and a picture stays as it was, and no vector of
the one passes for a vector of the other. Only the last layers change: the text head, and in the
vision head what comes after the attention's output.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

DEMO = Path(__file__).parent.parent.parent / "litapi" / "demo" / "checkpoint"
ROWS = (
    "text_model.head.weight",
    "text_model.head.bias",
    "vision_model.head.attention.out_proj.weight",
    "vision_model.head.attention.out_proj.bias",
    "vision_model.head.layernorm.weight",
    "vision_model.head.layernorm.bias",
    "vision_model.head.mlp.fc2.weight",
    "vision_model.head.mlp.fc2.bias",
)
COLUMNS = ("vision_model.head.mlp.fc1.weight",)


def write(folder: Path) -> Path:
    """Write the checkpoint into `folder`, which is made."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(DEMO, folder)
    weights: dict[str, Any] = load_file(DEMO / "model.safetensors")
    for name in ROWS:
        weights[name] = weights[name][::-1].copy()
    for name in COLUMNS:
        weights[name] = weights[name][:, ::-1].copy()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
