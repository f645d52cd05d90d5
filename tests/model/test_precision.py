"""Which precision a device computes in, and what the towers make of each."""

from __future__ import annotations

import functools
from typing import Any, get_args

import numpy as np
import pytest
import torch

from litapi.checkpoint import DEMO, Checkpoint, CheckpointError
from litapi.demo.heldout import heldout_scenes, pictures
from litapi.model.encoder import ImageEncoder, TextEncoder
from litapi.model.int8_linear import Int8Linear
from litapi.model.pixels import PixelMaker
from litapi.model.precision import PRECISIONS, arithmetic, choose_precision, float_type
from litapi.model.tokens import Tokenizer
from litapi.settings import Precision

CPU = torch.device("cpu")
CHECKPOINT = Checkpoint.open(DEMO)
SCENES = heldout_scenes()[::4]
LEAST = {"bfloat16": 0.9995, "float16": 0.99995, "int8": 0.998, "int8-weights": 0.9999}


@functools.cache
def encoders(precision: str) -> tuple[TextEncoder, ImageEncoder]:
    return (
        TextEncoder.load(CHECKPOINT, precision=precision),
        ImageEncoder.load(CHECKPOINT, precision=precision),
    )


def both(precision: str) -> tuple[Any, Any]:
    """The encoders, for loops over the two that `items` goes along with."""
    return encoders(precision)


@functools.cache
def items() -> tuple[Any, Any]:
    """Ids and pixels of held-out scenes."""
    maker = PixelMaker(CHECKPOINT)
    ids = Tokenizer.load(CHECKPOINT).encode([scene.caption() for scene in SCENES]).ids
    return ids, [maker.make(picture) for picture in pictures(SCENES, "heldout")]


def test_the_options_are_the_precisions_there_are() -> None:
    """Settings must not import torch, so it has the names once more."""
    assert get_args(Precision) == ("auto", *PRECISIONS)


# -- what a device computes in ---------------------------------------------------------------------


def test_auto_is_never_an_8_bit_precision() -> None:
    """Quality is given up only by somebody who asks for it."""
    assert choose_precision("auto", "cpu") in ("float32", "bfloat16")


@pytest.mark.parametrize("wanted", ["int8", "int8-weights"])
def test_every_cpu_computes_in_int8(wanted: str) -> None:
    """With VNNI or without."""
    assert choose_precision(wanted, "cpu") == wanted


def test_float16_is_refused_on_a_cpu() -> None:
    """It would be emulated."""
    with pytest.raises(CheckpointError, match="cpu does not compute in float16; use float32"):
        choose_precision("float16", "cpu")


def test_float8_is_refused_without_a_gpu_that_is_able() -> None:
    """The reason says which GPUs are; where an encoder is loaded it is the same."""
    for ask in (
        lambda: choose_precision("float8", "cpu"),
        lambda: TextEncoder.load(CHECKPOINT, precision="float8"),
    ):
        with pytest.raises(CheckpointError, match=r"cpu does not compute in float8.* 8\.9 or more"):
            ask()


@pytest.mark.parametrize(
    ("capability", "granted"),
    [
        ((7, 5), {"float16", "float32"}),
        ((8, 6), set(PRECISIONS) - {"float8"}),
        ((8, 9), set(PRECISIONS)),
        ((9, 0), set(PRECISIONS)),
    ],
)
def test_a_gpu_is_judged_by_its_capability(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], granted: set[str]
) -> None:
    """As the driver would say it; there need be no GPU here."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    found = set()
    for precision in PRECISIONS:
        try:
            found.add(choose_precision(precision, "cuda:0"))
        except CheckpointError:
            continue
    assert found == granted


@pytest.mark.parametrize(("able", "kind"), [(True, torch.bfloat16), (False, torch.float32)])
def test_what_is_not_quantized_stays_in_floats(
    monkeypatch: pytest.MonkeyPatch, able: bool, kind: torch.dtype
) -> None:
    """bfloat16 where a CPU computes in it and on a GPU, where float8's scales by row ask for it."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": able})
    assert float_type("int8", CPU) == kind
    assert float_type("int8-weights", CPU) == kind
    assert float_type("float32", CPU) == torch.float32
    assert float_type("int8", torch.device("cuda:0")) == torch.bfloat16
    assert float_type("float8", torch.device("cuda:0")) == torch.bfloat16
    assert float_type("float16", torch.device("cuda:0")) == torch.float16


def test_compiling_range_and_surroundings_of_int8_are_part_of_the_arithmetic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two towers that say the same here give the same vectors."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert arithmetic("int8-weights", CPU, compiled=True) == "int8-weights, bfloat16, compiled"
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert arithmetic("float32", CPU, compiled=False) == "float32"
    assert arithmetic("bfloat16", CPU, compiled=True) == "bfloat16, compiled"
    assert arithmetic("int8", CPU, compiled=False) in ("int8", "int8, 7 bits")
    card = torch.device("cuda:0")
    assert arithmetic("int8", card, compiled=False) == "int8, bfloat16, cuda"
    assert arithmetic("bfloat16", card, compiled=False) == "bfloat16"


# -- towers in each --------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", LEAST)
def test_vectors_stay_near_float32(precision: str) -> None:
    """Every row of either tower, on the trained checkpoint."""
    for exact, other, some in zip(both("float32"), both(precision), items(), strict=True):
        rows: Any = (exact.embed(some) * other.embed(some)).sum(axis=-1)
        assert rows.min() >= LEAST[precision]
        assert rows.min() < 1 - 1e-7, "nothing was rounded at all"


@pytest.mark.parametrize("precision", ["float32", *LEAST])
def test_a_vector_is_the_same_alone_and_among_others(precision: str) -> None:
    """Neighbours are no part of a cache key, so they must be no part of a vector."""
    for encoder, some in zip(both(precision), items(), strict=True):
        together = encoder.embed(some)
        alone = np.concatenate([encoder.embed(some[row : row + 1]) for row in range(len(some))])
        assert (alone * together).sum(axis=-1).min() >= 0.9999


@pytest.mark.parametrize("precision", ["int8", "int8-weights"])
def test_only_matrices_that_see_every_token_are_quantized(precision: str) -> None:
    """Tables, patches, norms, heads and what follows the pooling keep their numbers."""
    exact_text, exact_image = encoders("float32")
    text, image = encoders(precision)
    kind = float_type(precision, CPU)
    for exact, other in ((exact_text, text), (exact_image, image)):
        before = dict(exact.model.named_parameters())
        for name, weight in other.model.named_parameters():
            if ".layers." not in f".{name}":
                assert weight.dtype == kind
                assert torch.equal(weight, before[name].to(kind)), name
    last = text.model.encoder.layers[-1]
    assert type(last.self_attn.q_proj.weight.data) is torch.Tensor
    assert type(last.mlp.fc1.weight.data) is torch.Tensor
    exact_last = exact_text.model.encoder.layers[-1]
    assert torch.equal(last.mlp.fc1.weight, exact_last.mlp.fc1.weight.to(kind))


def test_int8_layers_are_in_place_of_the_plain_ones() -> None:
    """Of the last text layer only keys and values, for one position asks and all answer."""
    text, image = encoders("int8")
    for encoder in (text, image):
        first = encoder.model.encoder.layers[0]
        assert isinstance(first.mlp.fc2, Int8Linear)
        assert isinstance(first.self_attn.out_proj, Int8Linear)
    last = text.model.encoder.layers[-1].self_attn
    assert isinstance(last.k_proj, Int8Linear)
    assert not isinstance(last.q_proj, Int8Linear)


def test_parameters_are_counted_before_they_are_packed() -> None:
    """A tower in 8 bits has as many numbers as in 32."""
    for exact, other in zip(both("float32"), both("int8"), strict=True):
        assert exact.parameters == other.parameters
