"""A Linear layer in int8 on a CPU: weights scaled by row, activations by token.

The weights are quantized by torchao. The product is oneDNN's, called by name: torchao's own way
to it needs the tower to be compiled and frozen, and without that takes a product of integers that
is many times slower than float32. This way is fast in both cases, and exact: the sum is an integer,
so a row's result does not depend on how many rows there are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SMALLEST = 1e-12  # a row of zeros has no scale of its own
MIDDLE = 128  # activations are moved up to uint8, which every x86 multiplies fastest


class Int8Linear(nn.Module):
    """Takes the place of a float32 or bfloat16 `linear` with a bias."""

    def __init__(self, linear: Any, reduced: bool) -> None:
        """`reduced` keeps weights and activations to 7 bits, so that no pair overflows 16."""
        super().__init__()
        from torchao.quantization import Int8Tensor, PerRow

        weight = Int8Tensor.from_hp(linear.weight.detach(), PerRow(), reduce_range=reduced)
        self.top = 63 if reduced else 127
        self.width = int(linear.out_features)
        self.bias = linear.bias
        self.weight: Tensor = torch.ops.onednn.qlinear_prepack(weight.qdata, None)
        self.scale: Tensor = weight.scale.flatten()
        self.zero = torch.zeros(self.width, dtype=torch.int32)

    def forward(self, values: Tensor) -> Tensor:
        """(…, in) → (…, out), both of the type of the bias."""
        rows = values.reshape(-1, values.shape[-1]).float()
        scale = rows.abs().amax(-1, keepdim=True).clamp_min(SMALLEST) / self.top
        levels = (rows / scale).round().add(MIDDLE).to(torch.uint8)
        product = torch.ops.onednn.qlinear_pointwise(
            levels,
            1.0,  # one scale for the whole batch is all it knows; rows are scaled below
            MIDDLE,
            self.weight,
            self.scale,
            self.zero,
            None,
            1.0,
            0,
            self.bias.dtype,
            "none",
            [],
            "",
        )
        sums = torch.addcmul(self.bias, product, scale.to(product.dtype))
        return sums.view(*values.shape[:-1], self.width)
