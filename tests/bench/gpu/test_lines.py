"""The lines that decisions hang on, from figures that are known."""

from __future__ import annotations

from typing import Any

import pytest

from bench.compare.scenario import READY
from bench.gpu.lines import LINES, lines


def tower(name: str, batch: int, rate: float, **more: Any) -> dict[str, Any]:
    """A batch of a tower."""
    figures = {"items_per_s": {"median": rate}, "of_ceiling": rate / 4000, "waiting": 1 / batch}
    return {"tower": name, "batch": batch, "ceiling_gflop_per_s": 710_000, **figures, **more}


def point(system: str, rate: float) -> dict[str, Any]:
    """A level of a server."""
    return {"system": system, "items_per_s": rate}


EAGER = {
    "step": "eager",
    "rows": [tower("image", 1, 100), tower("image", 64, 2000), tower("text", 4, 8000)],
    "padding": [{
        "max_num_patches": [64, 256], "padding": 0.4,
        "patches_per_s": 100.0, "by_cost_patches_per_s": 160.0, "alike_patches_per_s": 200.0,
    }],
}  # fmt: skip
IMAGES = {
    "step": "images",
    "points": [point(READY, 1600), point("1 image", 700), point("1 image", 800),
               point("2 image", 1200)],
}  # fmt: skip
TEXTS = {"step": "texts", "points": [point(READY, 8000), point("1 text", 5200)]}
COMPILED = {
    "step": "compiled",
    "rows": [{"precision": "bfloat16", "items_per_s": {"median": 2500}},
             {"precision": "float8", "refused": "no such numbers"}],
}  # fmt: skip


def test_every_line_is_drawn_from_the_figures_of_its_steps() -> None:
    """By hand."""
    assert lines([EAGER, IMAGES, TEXTS, COMPILED]) == {
        "bare_of_ceiling": {"image": 0.5, "text": 2.0},
        "compiled_of_eager": {"bfloat16": 1.25},
        "http_of_bare": {"1 image": 0.5, "2 image": 0.75, "1 text": 0.65},
        "image_workers": {"1 image": 1.0, "2 image": 1.5},
        "seed": {
            "texts_per_s": 5200, "seed": 520.0, "seed_here": 5200.0,
            "of_seed": 10.0, "of_seed_here": 1.0,
        },
        "waiting": {"image": {"1": 1.0, "64": 1 / 64}, "text": {"4": 0.25}},
        "padding": {"[64, 256]": {"share": 0.4, "gain": 2.0, "gain_by_cost": 1.25}},
    }  # fmt: skip


@pytest.mark.parametrize("missing", ["eager", "images", "texts", "compiled"])
def test_a_line_whose_figures_are_missing_is_left_out(missing: str) -> None:
    """A step was skipped, failed, or was cut off before its first figure; the others stand."""
    rows = [row for row in (EAGER, IMAGES, TEXTS, COMPILED) if row["step"] != missing]
    found = lines([*rows, {"step": missing, "outcome": "skipped"}])
    assert 0 < len(found) < len(LINES)
    assert found.items() <= lines([EAGER, IMAGES, TEXTS, COMPILED]).items()


def test_nothing_measured_is_no_line() -> None:
    """And no error."""
    assert lines([]) == {}
