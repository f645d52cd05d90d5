"""Compiled bodies: the sizes batches are cut into, what is traced, and what comes out on a CPU.

Their vectors on a GPU are in tests/test_on_gpu.py.
"""

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from litapi.checkpoint import DEMO, Checkpoint
from litapi.messages import Kind
from litapi.model.engines.compiled import SIZES, SPARE, Compiled, keep_in
from litapi.model.engines.torch_engine import TorchImages, TorchText, load_tower
from litapi.model.pixels import PixelMaker
from litapi.model.probes import unit
from tests.support.inputs import cosines, own_items

CHECKPOINT = Checkpoint.open(DEMO)
PATCHES = 16


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
    ("kind", "items", "expected"),
    [
        *(("text", 1, [(1, 1)]), ("text", 2, [(2, 8)]), ("text", 9, [(8, 8), (1, 1)])),
        *(("text", 25, [(25, 32)]), ("text", 300, [(256, 256), (32, 32), (8, 8), (4, 8)])),
        *(("image", 2, [(1, 1), (1, 1)]), ("image", 3, [(3, 4)]), ("image", 15, [(15, 16)])),
        *(("image", 17, [(16, 16), (1, 1)]), ("image", 50, [(50, 64)])),
    ],
)
def test_a_gpu_pads_what_is_near_a_size_and_cuts_the_rest(
    kind: str, items: int, expected: list[tuple[int, int]]
) -> None:
    """A launch costs more than a few texts, and less than one more picture of a large model."""
    assert pieces(Compiled(nn.Identity(), kind), items) == expected


@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_gpu_never_computes_half_as_much_again(kind: Kind) -> None:
    """But for a few rows; sizes rise from one, or some number of items could not be cut."""
    assert SIZES[kind][0] == 1
    assert list(SIZES[kind]) == sorted(set(SIZES[kind]))
    compiled = Compiled(nn.Identity(), kind)
    for items in range(1, 600):
        computed = sum(size for _, size in pieces(compiled, items))
        assert items <= computed <= max(items * 4 / 3, items + SPARE[kind])


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What torch traced for a compiler, which here runs it as it is."""
    found: list[Any] = []
    plain = torch.compile

    def keep(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        found.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda made, **how: plain(made, backend=keep, **how))
    return found


@pytest.mark.parametrize("kind", ["text", "image"])
def test_one_layer_is_traced_for_all_of_them(kind: Kind, graphs: list[Any]) -> None:
    """And the end of the tower beside it, each once for every size."""
    tower = loaded(kind, layers=6)
    assert len(graphs) == 2 * len(SIZES[kind])
    tower.submit(items(kind)[:5])()
    assert len(graphs) == 2 * len(SIZES[kind]), "a batch was compiled for"


def test_a_process_may_have_several_compiled_towers(graphs: list[Any]) -> None:
    """torch keeps 8 shapes of one function, and towers of one process share theirs."""
    kinds: tuple[Kind, ...] = "text", "image", "text"
    towers = [loaded(kind) for kind in kinds]
    for kind, tower in zip(kinds, towers, strict=True):
        assert np.abs(tower.submit(items(kind))() - plain(kind).submit(items(kind))()).max() <= 1e-4


def test_the_reference_forward_of_a_compiled_tower_is_not_compiled(graphs: list[Any]) -> None:
    """It has shapes of its own, at each of which a worker would stop."""
    tower = loaded("text")
    before = len(graphs)
    assert np.abs(tower.stock(items("text")[:3]) - tower.submit(items("text")[:3])()).max() <= 1e-4
    assert len(graphs) == before


@pytest.mark.parametrize(
    ("kind", "precision"), [("text", "bfloat16"), ("text", "int8"), ("image", "float32")]
)
def test_what_inductor_makes_of_a_tower_is_the_tower(
    kind: Kind, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU, where it writes C++; int8 as torchao has it for GPUs."""
    monkeypatch.setitem(SIZES, kind, (1, 4))
    tower = loaded(kind, precision)
    found, expected = (unit(one.submit(items(kind))()) for one in (tower, plain(kind)))
    assert cosines(found, expected).min() >= {"float32": 0.99999}.get(precision, 0.99)


def loaded(kind: Kind, precision: str = "float32", layers: int = 0) -> Any:
    """A compiled tower on the CPU, if need be with more layers than it has."""
    model: Any = load_tower(kind, CHECKPOINT, "cpu", "float32", 0, compiled=True)
    own = model.encoder.layers
    own.extend([copy.deepcopy(own[0]) for _ in range(layers - len(own))])
    if kind == "text":
        return TorchText(model, "cpu", precision, compile=True)
    return TorchImages(model, PixelMaker(CHECKPOINT), "cpu", precision, True, PATCHES)


def plain(kind: Kind) -> Any:
    """The same in float32, not compiled."""
    return (TorchText if kind == "text" else TorchImages).load(CHECKPOINT)


def items(kind: Kind) -> Any:
    """Seven of them."""
    return own_items(CHECKPOINT, kind, 7, PATCHES)


def test_the_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """It holds code that a worker will run."""
    keep_in(tmp_path / "cache" / "inductor")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "cache" / "inductor")
    assert (tmp_path / "cache" / "inductor").stat().st_mode & 0o077 == 0
