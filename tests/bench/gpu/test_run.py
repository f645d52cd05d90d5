"""Steps in processes of their own: whatever becomes of one, what it found stays."""

from __future__ import annotations

import time
from typing import Any

import pytest

from bench.faults.vitals import births, survivors
from bench.gpu import step as step_module
from bench.gpu.step import DRY, PLANNED, STEPS, Row, Step, run

HERE = "tests.bench.gpu.work"


def step(name: str, seconds: float = PLANNED, least: float = 0.0) -> Step:
    """One of `work`; by default it may take all the time there is."""
    return Step(name, f"{HERE}:{name}", seconds, least)


def played(*steps: Step, seconds: float = 60.0) -> list[Row]:
    """The rows of a run, as they stood after its last step."""
    kept: list[list[Row]] = []
    rows = run("cpu", DRY, time.monotonic(), seconds, steps, lambda rows: kept.append([*rows]))
    assert [len(rows) for rows in kept] == [*range(1, len(steps) + 1)]
    return rows


def test_what_a_step_finds_stands_in_its_row() -> None:
    """With how it ended and how long it took."""
    (row,) = played(step("well"))
    assert row.pop("took_s") >= 0
    assert row == {"step": "well", "outcome": "ok", "rows": [{"batch": 1}, {"batch": 2}]}


def test_a_step_that_fails_says_why_and_the_others_go_on() -> None:
    """Whether it raised or was killed; what it had found stays."""
    broken, dead, well = played(step("breaks"), step("dies"), step("well"))
    assert (broken["outcome"], broken["reason"]) == ("failed", "ValueError: what broke")
    assert "work.py" in broken["traceback"]
    assert (dead["outcome"], dead["reason"]) == ("failed", "its process ended with 3")
    assert broken["found"] == dead["found"] == 1
    assert well["outcome"] == "ok"


def test_a_step_ends_in_time_with_all_that_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked first; then it and its descendants are killed."""
    monkeypatch.setattr(step_module, "GRACE", 2.0)
    row: dict[str, Any] = played(step("hangs"), seconds=8.0)[0]
    assert (row["outcome"], row["asked"]) == ("cut off", True)
    assert not survivors(births([row["child"]]))


def test_a_step_is_skipped_where_too_little_time_is_left() -> None:
    """With the reason; one that needs less is played."""
    first, second = played(step("well", 10.0, least=40.0), step("well"), seconds=PLANNED)
    assert first["outcome"] == "skipped"
    assert first["reason"].endswith("s were left, and it takes 40 or more")
    assert second["outcome"] == "ok"


def test_all_steps_fit_into_nine_minutes() -> None:
    """As planned, and each has more time than it needs at least."""
    assert PLANNED <= 540
    assert all(one.least < one.seconds for one in STEPS)
