"""The whole command on a CPU, tiny: every step goes to its end, and the file is complete."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import orjson
import pytest

from bench.gpu.lines import LINES
from bench.gpu.step import DRY, STEPS
from bench.gpu.towers import WAYS
from bench.rig.server_process import ROOT

COMMAND = ("-m", "bench.gpu", "--device", "cpu", "--demo", "--seconds", "1600")
PERCENTILES = {"p50", "p95", "p99"}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the file holds after a run that went well."""
    out = tmp_path_factory.mktemp("dry")
    done = subprocess.run(
        [sys.executable, *COMMAND, "--out", str(out)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.iterdir()
    assert path.name == "gpu-dry-run.json"
    found: dict[str, Any] = orjson.loads(path.read_bytes())
    return found


@pytest.mark.timeout(1700)
def test_every_step_ends_well_and_every_line_is_drawn(result: dict[str, Any]) -> None:
    """In their order, with what the machine is and which versions ran."""
    assert [row["step"] for row in result["steps"]] == [step.name for step in STEPS]
    assert {row["outcome"] for row in result["steps"]} == {"ok"}
    assert set(result["lines"]) == {line.__name__ for line in LINES}
    assert {"cpu", "cores", "gpu", "driver", "python", "packages"} <= set(result["machine"])
    assert result["options"]["demo"] is True


def test_every_step_has_all_its_figures(result: dict[str, Any]) -> None:
    """Or the reason why this machine has none."""
    ready, smoke, micro, eager, images, texts, compiled, suite = result["steps"]
    assert ready["torch"] == result["machine"]["packages"]["torch"]
    assert {row["tower"] for row in smoke["cosines"]} == {"text", "image"}
    assert [row["output"] for row in micro["products"]] == [*DRY.outputs]
    assert [row["way"] for row in micro["attention"]] == [way for way in WAYS for _ in range(2)]
    assert all("first_ms" in row or "refused" in row for row in micro["attention"])
    assert len(micro["moves"]) == 5
    batches = [(row["tower"], row["batch"]) for row in eager["rows"]]
    assert batches == [*(("image", n) for n in DRY.images), *(("text", n) for n in DRY.texts)]
    assert all(row["device_ms"] > 0 and row["kernels"] > 0 for row in eager["rows"])
    assert [row["max_num_patches"] for row in eager["padding"]] == [list(mix) for mix in DRY.mixes]
    assert len(images["points"]) == 1 + len(DRY.workers) * len(DRY.image_levels)
    assert len(texts["points"]) == 1 + len(DRY.text_levels) + len(DRY.full_levels)
    for point in (*images["points"], *texts["points"]):
        assert set(point["latency_ms"]) >= PERCENTILES
        assert point["errors_pct"] == 0
    assert [row["precision"] for row in compiled["rows"]] == ["float32", "float8"]
    assert compiled["rows"][0]["items_per_s"]["median"] > 0
    assert "float8" in compiled["rows"][1]["refused"]
    assert suite["tests"]["FAILED"] == suite["tests"]["ERROR"] == 0
