"""The quality gate on real towers: what passes, and what fails."""

from typing import Any

import pytest
from torch import nn

from litapi.checkpoint import DEMO, Checkpoint, CheckpointError
from litapi.model import precision as numbers
from litapi.model.engines import torch_engine as module
from litapi.quality import gate
from litapi.quality.fidelity import Fidelity
from litapi.quality.gate import Gate
from litapi.settings import Settings

CHECKPOINT = Checkpoint.open(DEMO)
PAIRS = 24


@pytest.fixture(autouse=True)
def few_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four hundred take half a minute."""
    monkeypatch.setattr(gate, "MOST", PAIRS)
    monkeypatch.setattr(gate, "FEWEST", PAIRS)


def judge(**options: Any) -> Fidelity:
    return Gate(Settings.model_validate(options), CHECKPOINT, "cpu").judge()


def coarsely(body: nn.Module, matrices: list[str], precision: str) -> None:
    """Weights of three levels: a precision that nobody should serve."""
    if precision == "float32":
        return
    for name in matrices:
        weight = body.get_parameter(f"{name}.weight")
        step = weight.abs().amax(1, keepdim=True)
        weight.data = (weight / step).round() * step


def test_int8_passes_on_the_demo_checkpoint() -> None:
    """All figures are there, and they say that the towers really were rounded."""
    found = judge(precision="int8")
    assert found.passed
    assert found.pairs == PAIRS
    for kind in ("text", "image"):
        assert 0.99 <= found.cosine[kind]["worst"] < 1 - 1e-6
    assert found.rank_correlation >= 0.995
    assert set(found.recall["found"]["text_to_image"]) == {"recall@1", "recall@5", "recall@10"}
    assert found.zero_shot is not None


def test_a_coarse_quantization_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate that lets everything through is none."""
    monkeypatch.setattr(module, "quantize", coarsely)
    monkeypatch.setitem(numbers.ON_CPU, "torch", ("float32", "int8"))
    found = judge(precision="int8", engine="torch")
    assert not found.passed
    assert found.lost > 0.1
    assert found.recall["exact"]["text_to_image"]["recall@1"] > 0.9
    assert found.sentence.startswith("recall@1 loses")


def test_a_tower_in_float32_is_compared_with_itself() -> None:
    """Each tower has its own precision, and only what was asked for is rounded."""
    found = judge(text_precision="int8", image_precision="float32")
    assert found.cosine["image"]["worst"] == pytest.approx(1, abs=1e-6)
    assert found.cosine["text"]["worst"] < 1 - 1e-6


def test_a_precision_that_does_not_run_names_its_option() -> None:
    """Before anything is computed."""
    with pytest.raises(CheckpointError, match=r"^--image-precision: The device cpu"):
        judge(image_precision="float8")
