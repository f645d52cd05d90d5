"""The comparison of precisions: processes that take turns, rows, and targets that can be missed."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.offline.isolated import STOCK, Loaded, Running, System, SystemFailed
from bench.offline.precision import judged, row
from bench.offline.sweep import table
from bench.offline.tower import BASELINE, OnnxTower
from litapi.checkpoint import DEMO, Checkpoint, CheckpointError

QUALITY: dict[str, Any] = {
    "recall": {"found": {"text_to_image": {"recall@1": 0.5}, "image_to_text": {"recall@1": 0.25}}}
}


def running(
    system: System, rates: Sequence[float] | None, refused: str = "", cosine: float = 1.0
) -> Running:
    """As it is after a measurement, without a process; `rates` are those of batch 8."""
    one = Running(system, DEMO, (8,), 1)
    one.refused = refused
    if rates is not None:
        vector = np.array([[cosine, np.sqrt(1 - cosine**2)]], np.float32)
        one.loaded = Loaded(2.0, 300_000_000, 200_000_000, vector)
        one.rates[8] = list(rates)
    return one


BASELINE_OF = System("image", BASELINE)
BASE = running(BASELINE_OF, [10, 20, 30])


def test_systems_in_processes_make_the_vectors_of_the_baseline() -> None:
    """Both sides get the same items, and each tells its own memory."""
    systems = (BASELINE_OF, System("image", "int8"), System("image", "float32", STOCK))
    vectors = []
    for system in systems:
        with Running(system, DEMO, (1, 2), 1) as one:
            assert one.loaded is not None
            assert one.loaded.resident >= one.loaded.private > 50_000_000
            one.measure(2, 0.01)
            assert one.rates[1] == []
            assert one.rates[2][0] > 0
            vectors.append(one.loaded.vectors)
    assert np.linalg.norm(vectors[0], axis=1) == pytest.approx(1, abs=1e-5)
    cosines = (vectors[0] * vectors[1]).sum(axis=1)
    assert 0.99 <= cosines.min() < 1 - 1e-7
    assert (vectors[0] * vectors[2]).sum(axis=1).min() >= 0.99999


@pytest.mark.parametrize(("tower", "why"), [("text", "pip install"), ("image", "NaFlex")])
def test_a_rival_that_does_not_run_says_why(
    monkeypatch: pytest.MonkeyPatch, tower: str, why: str
) -> None:
    """In one line, which a process hands on: not installed, or no such tower."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(CheckpointError, match=why):
        OnnxTower(Checkpoint.open(DEMO), tower, 1)


def test_what_the_machine_refuses_is_a_reason_and_no_failure() -> None:
    """The process ends, and the others go on."""
    with Running(System("text", "float8"), DEMO, (1,), 1) as one:
        assert one.loaded is None
        assert "does not compute in float8" in one.refused


def test_a_process_that_breaks_fails_the_run(tmp_path: Path) -> None:
    """Not a row less in silence."""
    with pytest.raises(SystemFailed, match="text float32 ended"):
        Running(System("text", "float32"), tmp_path, (1,), 1).__enter__()


def test_a_row_holds_ratio_memory_and_how_near_the_vectors_are() -> None:
    """Within the rounds: a machine that was slow for a round was slow for both."""
    found = row(running(System("image", "int8"), [20, 40, 90], cosine=0.75), BASE, None)
    assert found["batches"]["8"]["ratio"] == 2.0
    assert (found["resident_mb"], found["private_mb"]) == (300, 200)
    assert found["cosine"]["worst"] == pytest.approx(0.75)
    assert "demo_quality" not in found


@pytest.mark.parametrize(("factor", "met"), [(1.89, False), (1.9, True)])
def test_a_target_is_met_or_missed(factor: float, met: bool) -> None:
    """int8 images are to be 1.9 times as fast as bfloat16's in torch were."""
    today = running(System("image", "bfloat16", "torch"), [10, 20, 30])
    fast = running(System("image", "int8"), [rate * factor for rate in (10, 20, 30)])
    for one in (today, fast):
        one.rates[1] = one.rates[8]
    targets, impossible = judged([[BASE, today, fast]])
    assert [target.met for target in targets] == [True, met]
    assert impossible == []


def test_a_target_of_what_was_refused_is_not_possible_here() -> None:
    """Neither met nor missed, and the reason stands beside it; the others are not looked at."""
    today = running(System("image", "bfloat16", "torch"), [1])
    one = running(System("image", "bfloat16"), None, "no such thing")
    said = "not possible here  image bfloat16 ÷ bfloat16 torch: no such thing"
    assert judged([[BASE, today, one]]) == ([], [said])


def test_the_table_has_a_line_for_each_batch_and_the_reasons() -> None:
    """Recall stands there where it was measured."""
    rows = [
        row(BASE, BASE, None),
        row(running(System("image", "int8"), [20, 40, 60]), BASE, QUALITY),
        row(running(System("image", "float8"), None, "no GPU"), BASE, None),
    ]
    lines = table(rows).splitlines()
    assert len(lines) == 2 + 2 + 1
    assert BASELINE in lines[2]
    assert "0.500 / 0.250" in lines[3]
    assert lines[4] == "refused  image, float8: no GPU"
