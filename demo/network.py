"""A NaFlex SigLIP2 of 0.8 million parameters, and its training form.

`image_vectors` and `text_vectors` compute what `Siglip2Model` computes, without what a training
step need not pay for: all pictures of a batch share one grid, so there is no padding, no mask and
one resized position table; patches may be left out; and of the last text layer only the last
position is worked out, the one that is pooled.

A net this small needs a good start, so three things are not random: the position table is waves,
since resizing averages neighbours and wipes out a random one; the patch embedding is the cosine
bank that JPEG uses, in grey and two colour differences; and keys start equal to queries, so that
each patch attends first to those near it and like it.
"""

import math
from itertools import product
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Siglip2Config, Siglip2Model, Siglip2TextConfig, Siglip2VisionConfig
from transformers.models.siglip2.modeling_siglip2 import Siglip2EncoderLayer

from demo.tokenizer import POSITIONS
from litapi.model.engines.layers import TextBody

WIDTH = 96
HEADS = 4
PATCH = 16
# Grey and two differences of colours, with the number of filters that each gets.
OPPONENTS = {(1.0, 1.0, 1.0): 40, (1.0, -1.0, 0.0): 28, (0.5, 0.5, -1.0): 28}
SIDE = 16  # the position table is SIDE x SIDE, resized to the grid of each picture


def build(vocab_size: int) -> Siglip2Model:
    model = Siglip2Model(_config(vocab_size))
    vision = model.vision_model
    with torch.no_grad():
        model.logit_scale.fill_(math.log(20))
        model.logit_bias.fill_(-10.0)
        vision.embeddings.position_embedding.weight.copy_(_waves(SIDE, WIDTH))
        vision.embeddings.patch_embedding.weight.copy_(_cosines(PATCH))
        for layer in vision.encoder.layers:
            attention = cast("Siglip2EncoderLayer", layer).self_attn
            attention.k_proj.weight.copy_(attention.q_proj.weight)
    return model


def _config(vocab_size: int) -> Siglip2Config:
    shared = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "intermediate_size": 3 * WIDTH}
    text = Siglip2TextConfig(
        **shared,
        num_hidden_layers=2,
        vocab_size=vocab_size,
        max_position_embeddings=POSITIONS,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    vision = Siglip2VisionConfig(**shared, num_hidden_layers=4, num_patches=SIDE**2)
    return Siglip2Config(text_config=text, vision_config=vision)


def _waves(side: int, width: int) -> Tensor:
    rates = torch.exp(torch.linspace(0, -math.log(side * 4), width // 4)) * math.pi / 2
    angles = torch.arange(side)[:, None] * rates
    wave = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = wave[:, None].expand(side, side, -1)
    columns = wave[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=2).reshape(side * side, width) * 0.5


def _cosines(patch: int) -> Tensor:
    """The smoothest filters first; the flat one, which any patch answers to, is the weakest."""
    axis = (torch.arange(patch) + 0.5) * math.pi / patch
    waves = torch.cos(torch.arange(patch)[:, None] * axis)
    order = sorted(product(range(patch), repeat=2), key=lambda at: (at[0] ** 2 + at[1] ** 2, at))
    filters = [
        torch.einsum("y,x,c->yxc", waves[row], waves[column], torch.tensor(colour)).flatten()
        for colour, many in OPPONENTS.items()
        for row, column in order[:many]
    ]
    gains = [1 / 16 if at == (0, 0) else 1 / 4 for n in OPPONENTS.values() for at in order[:n]]
    return torch.stack([gain * f / f.norm() for gain, f in zip(gains, filters, strict=True)])


def image_vectors(
    model: Siglip2Model, patches: Tensor, grid: tuple[int, int], kept: Tensor | None = None
) -> Tensor:
    """With `kept`, the patches are only those at these places (pictures x kept) of the grid."""
    vision = model.vision_model
    places = vision.embeddings.position_embedding.weight.reshape(SIDE, SIDE, -1)
    table = vision.embeddings.resize_positional_embeddings(
        places, torch.tensor([grid]), grid[0] * grid[1]
    )
    hidden = vision.embeddings.patch_embedding(patches)
    # Not table[0][kept]: the gradient of an index adds up in whatever order the threads come.
    hidden = hidden + (table if kept is None else functional.embedding(kept, table[0]))
    hidden = vision.encoder(inputs_embeds=hidden).last_hidden_state
    return functional.normalize(vision.head(vision.post_layernorm(hidden)), dim=-1)


def text_vectors(model: Siglip2Model, tokens: Tensor) -> Tensor:
    text = model.text_model
    return functional.normalize(TextBody(text)(text.embeddings(input_ids=tokens)), dim=-1)
