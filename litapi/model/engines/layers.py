"""The bodies of the towers: from embedded tokens or patches to the pooled output.

Everything before (token table, patches, positions) depends on the input's form; a body is the same
sums for any input of one shape. So a body is what is quantized, and what is compiled.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it


class TextBody(nn.Module):
    """The layers, norm and head of a Siglip(2)TextModel, the last layer for one position only."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.layers = model.encoder.layers
        self.norm = model.final_layer_norm
        self.head = model.head

    def forward(self, hidden: Tensor) -> Tensor:
        """(n, 64, width) → (n, dim)."""
        *layers, last = self.layers
        for layer in layers:
            hidden = layer(hidden, None)
        pooled: Tensor = self.head(self.norm(_one_position(last, hidden))[:, -1])
        return pooled

    def matrices(self) -> list[str]:
        """The names of the Linear modules that see every token."""
        last = f"layers.{len(self.layers) - 1}."
        names = [name for name, one in self.named_modules() if isinstance(one, nn.Linear)]
        seen = [name for name in names if name.startswith("layers.") and not name.startswith(last)]
        return [*seen, f"{last}self_attn.k_proj", f"{last}self_attn.v_proj"]


def _one_position(layer: Any, hidden: Tensor) -> Tensor:
    """One transformer layer for the last position only: (n, 64, width) → (n, 1, width)."""
    attention = layer.self_attn
    last, normed = hidden[:, -1:], layer.layer_norm1(hidden)

    def heads(projection: nn.Module, states: Tensor) -> Tensor:
        projected: Tensor = projection(states)
        count: int = attention.num_heads
        return projected.view(*states.shape[:2], count, -1).transpose(1, 2)

    mixed = F.scaled_dot_product_attention(
        heads(attention.q_proj, normed[:, -1:]),
        heads(attention.k_proj, normed),
        heads(attention.v_proj, normed),
        scale=attention.scale,
    )
    last = last + attention.out_proj(mixed.transpose(1, 2).flatten(2))
    result: Tensor = last + layer.mlp(layer.layer_norm2(last))
    return result


class ImageBody(nn.Module):
    """The layers, norm and pooling head of a Siglip(2)VisionModel."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.layers = model.encoder.layers
        self.norm = model.post_layernorm
        self.head = model.head

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """(n, patches, width) → (n, dim); `mask` (n, patches) int64 is 0 at padding."""
        seen = None if mask is None else mask[:, None, None, :].bool()
        for layer in self.layers:
            hidden = layer(hidden, seen)
        hidden = self.norm(hidden)
        pooled: Tensor = self.head(hidden) if mask is None else self.head(hidden, mask)
        return pooled

    def matrices(self) -> list[str]:
        """The names of the Linear modules that see every patch."""
        named = self.named_modules()
        return [n for n, one in named if n.startswith("layers.") and isinstance(one, nn.Linear)]
