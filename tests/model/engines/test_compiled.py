"""Compiled bodies: which sizes batches are cut into. Their vectors are in tests/test_on_gpu.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from litapi.checkpoint import CheckpointError
from litapi.model.engines.compiled import SIZES, SPARE, Compiled, keep_in


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
    assert pieces(Compiled(nn.Identity(), "text"), items) == expected


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
    assert pieces(Compiled(nn.Identity(), "image"), items) == expected


@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_gpu_never_computes_half_as_much_again(kind: str) -> None:
    """But for a few rows."""
    compiled = Compiled(nn.Identity(), kind)
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
        Compiled(nn.Identity(), "text")


def test_the_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """It holds code that a worker will run."""
    keep_in(tmp_path / "cache" / "inductor")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "cache" / "inductor")
    assert (tmp_path / "cache" / "inductor").stat().st_mode & 0o077 == 0
