"""How a worker uses its device, where no option says it."""

from __future__ import annotations

import dataclasses

import pytest

from litapi.checkpoint import Checkpoint, fetch
from litapi.messages import Kind
from litapi.model.plan import Plan, batch_items
from litapi.settings import Settings


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    """The demo checkpoint."""
    return Checkpoint.open(fetch("", None))


@pytest.mark.parametrize(
    ("device", "options", "gflop", "threads"),
    [
        ("cpu", {}, 11.0, 8),
        ("cpu", {"text_workers": 2}, 11.0, 4),
        ("cpu", {"image_workers": 4}, 11.0, 8),
        ("cpu", {"text_workers": 16}, 11.0, 1),
        ("cpu", {}, 0.05, 1),
        ("cpu", {"threads": 3}, 0.05, 3),
        ("cuda:0", {}, 11.0, 1),
    ],
)
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
    ("kind", "compiled", "gflop", "items"),
    [
        ("text", False, 11.0, 7),  # a text of base size
        ("text", True, 11.0, 8),  # and not seven single ones
        ("text", False, 5.6, 14),
        ("text", True, 5.6, 16),
        ("text", True, 7.2, 8),  # and not eight and three single ones
        ("text", True, 2.5, 32),
        ("text", True, 53.1, 2),  # so400m: all single ones, no other size is as small
        ("text", True, 400.0, 1),
        ("text", True, 0.05, 64),
        ("image", True, 11.0, 7),
    ],
)
def test_a_compiled_towers_batches_leave_nothing_over(
    kind: Kind, compiled: bool, gflop: float, items: int
) -> None:
    """On a CPU a batch is cut into compiled sizes, and single items cost a quarter more each."""
    assert batch_items(kind, gflop, "cpu", compiled) == items


def test_options_win_over_every_rule(checkpoint: Checkpoint) -> None:
    """Each number of a plan is an option of its own."""
    chosen = Settings(threads=5, decode_threads=6, image_batch_patches=777)
    assert Plan.of(chosen, checkpoint, "image", "cpu") == Plan(5, 6, 777)
