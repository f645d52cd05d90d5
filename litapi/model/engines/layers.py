"""The bodies of the towers: from embedded tokens or patches to the pooled output.

Everything before (token table, patches, positions) depends on the input's form; a body is the same
sums for any input of one shape. So a body is what is quantized, and what is compiled: a step, which
is made for each of the layers that are alike, and an end, by two functions that may be compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

Part = Callable[..., Tensor]
Made = Callable[[Part], Part]


def _as_it_is(function: Part) -> Part:
    return function


def _layer(layer: Any, hidden: Tensor, seen: Tensor | None) -> Tensor:
    """A transformer layer: (n, length, width) → the same. `seen` (n, 1, 1, length) is a mask."""
    result: Tensor = layer(hidden, seen)
    return result


class JointAttention(nn.Module):
    """A layer's attention with its queries, keys and values as one product in place of three.

    For a card, where each product is a launch of its own. It stands where the stock one stood, so
    that transformers' own layer calls it.
    """

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.num_heads, self.head_dim = stock.num_heads, stock.head_dim
        parts = stock.q_proj, stock.k_proj, stock.v_proj
        weight = torch.cat([one.weight.detach() for one in parts])
        self.qkv = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
        self.qkv.weight = nn.Parameter(weight, requires_grad=False)
        bias = torch.cat([one.bias.detach() for one in parts])
        self.qkv.bias = nn.Parameter(bias, requires_grad=False)
        self.out_proj = stock.out_proj

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: object
    ) -> tuple[Tensor, None]:
        """(n, length, width) → the same, and no weights; the mask as of the stock layer."""
        query, key, value = self.qkv(hidden_states).chunk(3, dim=-1)
        return self.out_proj(_attended(self, query, key, value, attention_mask)), None


def join(layers: Sequence[Any]) -> None:
    """Give these layers joint attention."""
    for layer in layers:
        layer.self_attn = JointAttention(layer.self_attn)


class Body(nn.Module):
    """Layers, a norm and a head."""

    def __init__(self, model: Any, norm: nn.Module, head: nn.Module, end: Part, made: Made) -> None:
        """`made` makes of step and end what is called: compiled functions, or the same."""
        super().__init__()
        self.layers, self.norm, self.head = model.encoder.layers, norm, head
        self.step, self.end = made(_layer), made(end)

    def matrices(self) -> list[str]:
        """The names of the Linear modules that see every token or patch."""
        named = self.named_modules()
        return [n for n, one in named if n.startswith("layers.") and isinstance(one, nn.Linear)]


class TextBody(Body):
    """The layers, norm and head of a Siglip(2)TextModel, the last layer for one position only."""

    def __init__(self, model: Any, made: Made = _as_it_is) -> None:
        super().__init__(model, model.final_layer_norm, model.head, _last_position, made)

    def forward(self, hidden: Tensor) -> Tensor:
        """(n, 64, width) → (n, dim)."""
        *layers, _ = self.layers
        for layer in layers:
            hidden = self.step(layer, hidden, None)
        return self.end(self, hidden)

    def matrices(self) -> list[str]:
        last = f"layers.{len(self.layers) - 1}."
        seen = [name for name in super().matrices() if not name.startswith(last)]
        return [*seen, f"{last}self_attn.k_proj", f"{last}self_attn.v_proj"]


def _last_position(body: Any, hidden: Tensor) -> Tensor:
    pooled: Tensor = body.head(body.norm(_one_position(body.layers[-1], hidden))[:, -1])
    return pooled


def _one_position(layer: Any, hidden: Tensor) -> Tensor:
    """One transformer layer for the last position only: (n, 64, width) → (n, 1, width)."""
    attention = layer.self_attn
    last, normed = hidden[:, -1:], layer.layer_norm1(hidden)
    query, key = attention.q_proj(normed[:, -1:]), attention.k_proj(normed)
    last = last + attention.out_proj(_attended(attention, query, key, attention.v_proj(normed)))
    result: Tensor = last + layer.mlp(layer.layer_norm2(last))
    return result


def _attended(
    attention: Any, query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None = None
) -> Tensor:
    """(n, queries, width) of keys and values (n, positions, width), each head on its own."""
    heads: int = attention.num_heads

    def split(states: Tensor) -> Tensor:
        return states.view(*states.shape[:2], heads, -1).transpose(1, 2)

    scale: float = attention.head_dim**-0.5
    states = split(query), split(key), split(value)
    mixed = F.scaled_dot_product_attention(*states, attn_mask=seen, scale=scale)
    return mixed.transpose(1, 2).flatten(2)


class ImageBody(Body):
    """The layers, norm and pooling head of a Siglip(2)VisionModel."""

    def __init__(self, model: Any, made: Made = _as_it_is) -> None:
        super().__init__(model, model.post_layernorm, PoolingHead(model.head), _pooled, made)

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """(n, patches, width) → (n, dim); `mask` (n, patches) int64 is 0 at padding."""
        seen = None if mask is None else mask[:, None, None, :].bool()
        for layer in self.layers:
            hidden = self.step(layer, hidden, seen)
        return self.end(self, hidden, seen)


def _pooled(body: Any, hidden: Tensor, seen: Tensor | None) -> Tensor:
    pooled: Tensor = body.head(body.norm(hidden), seen)
    return pooled


class PoolingHead(nn.Module):
    """The pooling head of a Siglip(2)VisionModel, whose own way also computes what its attention
    weighed, and drops it."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.stock = head

    def forward(self, hidden: Tensor, seen: Tensor | None) -> Tensor:
        """(n, patches, width) → (n, width); `seen` (n, 1, 1, patches) is False at padding."""
        head, attention = self.stock, self.stock.attention
        width: int = attention.embed_dim
        weight, bias = attention.in_proj_weight, attention.in_proj_bias
        query = F.linear(head.probe, weight[:width], bias[:width]).expand(hidden.shape[0], -1, -1)
        key, value = F.linear(hidden, weight[width:], bias[width:]).chunk(2, dim=-1)
        pooled = attention.out_proj(_attended(attention, query, key, value, seen))
        result: Tensor = (pooled + head.mlp(head.layernorm(pooled)))[:, 0]
        return result
