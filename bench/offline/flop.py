"""Floating-point operations of one item, counted from a tower's shape.

A multiply and an add are two. Counted are matrix products and attention, as torch's own counter
does it, as `litapi.model.encoder` goes: the last text layer for the one position that is pooled.
Norms, activations and softmax are left out; they are no work for a matrix unit.
"""

from __future__ import annotations

from typing import Any


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
