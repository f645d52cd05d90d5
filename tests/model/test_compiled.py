"""Compiled bodies: which sizes batches are cut into, and that vectors stay what they are."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from litapi.checkpoint import DEMO, Checkpoint, CheckpointError
from litapi.model import compiled as module
from litapi.model.compiled import SIZES, SPARE, Compiled, keep_in
from litapi.model.encoder import ImageEncoder, TextEncoder
from litapi.model.pixels import PixelMaker
from litapi.model.tokens import Tokenizer
from tests.support.checkpoint import CheckpointMaker
from tests.support.inputs import pictures

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is compiled here is found by nobody, and what others compiled is not found here."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def pieces(compiled: Compiled, items: int) -> list[tuple[int, int]]:
    found = []
    while items:
        found.append(compiled.piece(items))
        items -= found[-1][0]
    return found


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (1, [(1, 1)]),
        (7, [(1, 1)] * 7),
        (8, [(8, 8)]),
        (18, [(8, 8), (8, 8), (1, 1), (1, 1)]),
    ],
)
def test_a_cpu_cuts_and_never_pads(items: int, expected: list[tuple[int, int]]) -> None:
    """A padded row costs a CPU as much as a real one."""
    assert pieces(Compiled(nn.Identity(), "text", CPU, "float32"), items) == expected


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (1, [(1, 1)]),
        (2, [(2, 8)]),
        (9, [(8, 8), (1, 1)]),
        (25, [(25, 32)]),
        (300, [(256, 256), (32, 32), (8, 8), (4, 8)]),
    ],
)
def test_a_gpu_pads_what_is_near_a_size_and_cuts_the_rest(
    items: int, expected: list[tuple[int, int]]
) -> None:
    """A launch costs more than a few rows, and less than many."""
    assert pieces(Compiled(nn.Identity(), "text", GPU, "bfloat16"), items) == expected


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (2, [(1, 1), (1, 1)]),
        (3, [(3, 4)]),
        (15, [(15, 16)]),
        (17, [(16, 16), (1, 1)]),
        (50, [(50, 64)]),
    ],
)
def test_pictures_are_padded_less(items: int, expected: list[tuple[int, int]]) -> None:
    """One more of a large model is work for milliseconds."""
    assert pieces(Compiled(nn.Identity(), "image", GPU, "bfloat16"), items) == expected


@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_gpu_never_computes_half_as_much_again(kind: str) -> None:
    """But for a few rows."""
    compiled = Compiled(nn.Identity(), kind, GPU, "bfloat16")
    for items in range(1, 600):
        computed = sum(size for _, size in pieces(compiled, items))
        assert items <= computed <= max(items * 4 / 3, items + SPARE[kind])


@pytest.mark.parametrize("sizes", SIZES.values())
def test_every_tower_has_a_size_of_one_and_they_rise(sizes: tuple[int, ...]) -> None:
    """Or some number of items could not be cut."""
    assert sizes[0] == 1
    assert list(sizes) == sorted(set(sizes))


def test_without_a_compiler_the_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is compiled, and with the way out."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(CheckpointError, match=r"needs a C\+\+ compiler.*--compile off"):
        Compiled(nn.Identity(), "text", CPU, "float32")


def test_the_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """It holds code that a worker will run."""
    keep_in(tmp_path / "cache" / "inductor")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "cache" / "inductor")
    assert (tmp_path / "cache" / "inductor").stat().st_mode & 0o077 == 0


def test_a_compiled_text_tower_gives_the_same_vectors(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """The demo's, in int8: near the plain one, the same alone and among others, said in the log."""
    monkeypatch.setitem(module.SIZES, ("text", "cpu"), (1, 2))
    checkpoint = Checkpoint.open(DEMO)
    ids = Tokenizer.load(checkpoint).encode(["a red circle", "two blue squares", "green"]).ids
    with caplog.at_level(logging.INFO, "siglit.compiled"):
        encoder = TextEncoder.load(checkpoint, precision="int8", compile=True)
    assert "compiling the text tower for batches of 2 (2 of 2)" in caplog.messages
    assert any((tmp_path / "inductor").rglob("*.so"))
    plain = TextEncoder.load(checkpoint, precision="int8")
    found = encoder.embed(ids)
    assert (found * plain.embed(ids)).sum(axis=-1).min() >= 0.9999
    alone = np.concatenate([encoder.embed(ids[row : row + 1]) for row in range(3)])
    assert (alone * found).sum(axis=-1).min() >= 0.9999
    assert encoder.arithmetic.endswith(", compiled")


def test_a_compiled_naflex_tower_takes_every_shape(tmp_path: Path) -> None:
    """Padded and masked to one length, except a picture that is longer: that goes the plain way."""
    folder = CheckpointMaker.named("tiny-naflex").write(tmp_path / "naflex")
    checkpoint = Checkpoint.open(folder)
    maker = PixelMaker(checkpoint)
    pixels = [maker.make(picture) for picture in pictures()]
    pixels.insert(1, maker.make(pictures()[0], 100))
    assert len({one.cost for one in pixels}) > 2
    plain = ImageEncoder.load(checkpoint)
    encoder = ImageEncoder.load(checkpoint, compile=True)
    found = encoder.embed(pixels)
    assert (found * plain.embed(pixels)).sum(axis=-1).min() >= 0.999999
    alone = np.concatenate([encoder.embed([one]) for one in pixels])
    assert (alone * found).sum(axis=-1).min() >= 0.999999


def test_int8_weights_stay_int8_when_compiled() -> None:
    """Freezing would fold them back into floats, so that precision is compiled without it."""
    assert not Compiled(nn.Identity(), "text", CPU, "int8-weights").frozen
    assert Compiled(nn.Identity(), "text", CPU, "int8").frozen
    assert not Compiled(nn.Identity(), "text", GPU, "bfloat16").frozen
