"""How a worker uses its device, where no option says it."""

import dataclasses

import pytest

from litapi.checkpoint import Checkpoint, fetch
from litapi.messages import Kind
from litapi.model.plan import Plan
from litapi.settings import Precision, Settings


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    """The demo checkpoint."""
    return Checkpoint.open(fetch("", None))


@pytest.mark.parametrize(
    ("device", "options", "gflop", "threads"),
    [
        ("cpu", {}, 11.0, 8), ("cpu", {"text_workers": 2}, 11.0, 4),
        ("cpu", {"image_workers": 4}, 11.0, 8), ("cpu", {"text_workers": 16}, 11.0, 1),
        ("cpu", {}, 0.05, 1), ("cpu", {"threads": 3}, 0.05, 3), ("cuda:0", {}, 11.0, 1),
    ],
)  # fmt: skip
def test_a_tower_may_use_all_cores_of_a_cpu_unless_it_is_tiny(
    checkpoint: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    options: dict[str, int],
    gflop: float,
    threads: int,
) -> None:
    """The workers of a tower share the cores; the other tower's may be idle and take none away."""
    monkeypatch.setattr("litapi.model.plan.cores", lambda: 8)
    costs = dataclasses.replace(checkpoint, text_gflop=gflop)
    assert Plan.of(Settings(**options), costs, "text", device).threads == threads


@pytest.mark.parametrize(
    ("kind", "precision", "gflop", "items"),
    [
        ("text", "float32", 10.3, 8), ("text", "int8", 10.3, 8),  # base size
        ("image", "float32", 35.4, 2), ("image", "int8", 35.4, 9),
        ("image", "float32", 670.0, 1), ("text", "float32", 0.05, 64),  # so400m, demo
    ],
)  # fmt: skip
def test_a_cpu_has_small_batches(
    checkpoint: Checkpoint, kind: Kind, precision: Precision, gflop: float, items: int
) -> None:
    """Larger ones of images where the products are fast; at least one item, and not so many tiny
    ones that they wait for each other."""
    costs = dataclasses.replace(checkpoint, text_gflop=gflop, image_gflop=gflop)
    each = checkpoint.text_length if kind == "text" else checkpoint.max_num_patches
    assert Plan.of(Settings(precision=precision), costs, kind, "cpu").budget == items * each


def test_options_win_over_every_rule(checkpoint: Checkpoint) -> None:
    """Each number of a plan is an option of its own."""
    chosen = Settings(threads=5, decode_threads=6, image_batch_patches=777)
    assert Plan.of(chosen, checkpoint, "image", "cpu") == Plan(5, 6, 777)
