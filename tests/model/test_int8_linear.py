"""The int8 product on a CPU: exact, by row, and safe where the CPU would saturate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchao.quantization import Int8Tensor, PerRow
from torchao.utils import should_reduce_range

from litapi.model.int8_linear import Int8Linear

REDUCED = should_reduce_range(torch.device("cpu"))


def linear(inputs: int = 96, outputs: int = 64) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs)


def by_hand(layer: nn.Linear, values: Tensor, top: int) -> Tensor:
    """The same sums in float64, of torchao's weights and of activations scaled by token."""
    weight = Int8Tensor.from_hp(layer.weight, PerRow(), reduce_range=REDUCED)
    scale = values.abs().amax(-1, keepdim=True) / top
    product = (values / scale).round() @ weight.qdata.double().T
    expected: Tensor = product * scale * weight.scale.double().T + layer.bias.double()
    return expected


@torch.inference_mode()
def test_the_product_is_that_of_the_rounded_numbers() -> None:
    """Nothing is lost beyond the rounding itself."""
    layer, values = linear(), torch.randn(40, 96)
    found = Int8Linear(layer, REDUCED)(values)
    expected = by_hand(layer, values.double(), 63 if REDUCED else 127)
    assert (found - expected).abs().max() <= 1e-5
    assert torch.cosine_similarity(found.double(), expected).min() >= 0.99999


@torch.inference_mode()
def test_the_largest_numbers_do_not_overflow() -> None:
    """All weights and values at their limits: without VNNI pairs of them must fit 16 bits."""
    layer = linear()
    layer.weight.fill_(1.0)
    layer.bias.fill_(0.0)
    found = Int8Linear(layer, REDUCED)(torch.ones(4, 96))
    assert found == pytest.approx(torch.full((4, 64), 96.0), rel=0.02)


@torch.inference_mode()
def test_a_row_does_not_depend_on_its_neighbours() -> None:
    """One scale for a whole batch would let a large neighbour round a row to nothing."""
    module, row = Int8Linear(linear(), REDUCED), torch.randn(1, 96)
    alone = module(row)
    for loudness in (1.0, 1e4):
        assert torch.equal(module(torch.cat([torch.randn(31, 96) * loudness, row]))[-1:], alone)


@torch.inference_mode()
def test_the_shape_is_kept_and_a_row_of_zeros_gives_the_bias() -> None:
    """(n, tokens, in) → (n, tokens, out)."""
    layer = linear()
    found = Int8Linear(layer, REDUCED)(torch.zeros(2, 5, 96))
    assert found.shape == (2, 5, 64)
    assert torch.equal(found[1, 4], layer.bias)


@torch.inference_mode()
def test_bfloat16_in_and_out_loses_no_more_than_bfloat16_does() -> None:
    """Scales are taken in float32; the result is rounded where it is stored, row by row."""
    values = torch.randn(40, 96).bfloat16()
    module = Int8Linear(linear().bfloat16(), REDUCED)
    found, exact = module(values), Int8Linear(linear(), REDUCED)(values.float())
    assert found.dtype == torch.bfloat16
    assert (found.float() - exact).abs().max() <= exact.abs().max() / 64
    assert torch.equal(module(values[-1:]), found[-1:])
