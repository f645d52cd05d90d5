"""Layers on a card: one product in place of three, with the sums of transformers' own layer."""

from typing import Any

import numpy as np
import pytest
import torch

from litapi.checkpoint import DEMO, Checkpoint
from litapi.model.engines import torch_engine
from litapi.model.engines.layers import JointAttention, join
from litapi.model.engines.torch_engine import TorchImages, TorchText
from litapi.model.pixels import PixelMaker
from tests.support.inputs import own_ids, pictures

CHECKPOINT = Checkpoint.open(DEMO)


def rows(joint: bool, precision: str) -> list[np.ndarray[Any, Any]]:
    """Of texts, and of pictures with and without padding, by our way and by the stock one."""
    text = TorchText.load(CHECKPOINT, precision=precision)
    image = TorchImages.load(CHECKPOINT, precision=precision)
    if joint:
        join(text.model.encoder.layers[:-1])
        join(image.model.encoder.layers)
    ids = own_ids(CHECKPOINT, ["a red circle", "two blue squares"])
    maker = PixelMaker(CHECKPOINT)
    unlike = [maker.make(one, 16 if at % 2 else 64) for at, one in enumerate(pictures(5))]
    return [
        *(way(ids) for way in (lambda some: text.submit(some)(), text.stock)),
        *(way(unlike) for way in (lambda some: image.submit(some)(), image.stock)),
    ]


@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-6), ("bfloat16", 0.02)])
def test_joint_attention_gives_the_rows_of_three_products(precision: str, most: float) -> None:
    """Rows of unit length differ by rounding alone, by our way and by transformers' layer."""
    for plain, joint in zip(rows(False, precision), rows(True, precision), strict=True):
        sizes = np.linalg.norm(plain, axis=1, keepdims=True)
        assert np.abs(plain - joint).max() <= most * sizes.max()


@pytest.mark.parametrize("tower", [TorchText, TorchImages])
def test_layers_are_joint_on_a_card_and_stock_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, tower: type[TorchText] | type[TorchImages]
) -> None:
    """The last text layer asks for one position alone, so it keeps three products."""

    def joined() -> list[bool]:
        layers = tower.load(CHECKPOINT).body.layers
        return [isinstance(layer.self_attn, JointAttention) for layer in layers]

    assert not any(joined())
    monkeypatch.setattr(torch_engine, "find_device", lambda device: torch.device("meta"))
    monkeypatch.setattr(torch_engine, "settle", lambda device: None)
    monkeypatch.setattr(TorchImages, "_position_table", lambda tower: None)  # which holds values
    *most, last = joined()
    assert all(most)
    assert last == (tower is TorchImages)
