"""When the gate is asked, what becomes of its verdict, and when it is asked no more."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from litapi.quality import verdict
from litapi.quality.verdict import Refused, admit, needs_gate
from litapi.settings import Settings
from tests.support.verdicts import CHECKPOINT, figures, keep, settings, write_pairs


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({}, False),
        ({"precision": "bfloat16", "compile": "on"}, False),
        ({"precision": "int8"}, True),
        ({"precision": "int8", "text_precision": "float32"}, True),
        ({"precision": "float8", "text_precision": "auto", "image_precision": "auto"}, False),
        ({"text_precision": "float16"}, True),
    ],
)
def test_only_precisions_that_may_lose_quality_are_judged(
    options: dict[str, Any], needed: bool
) -> None:
    """float32 and bfloat16 start as fast as ever."""
    assert needs_gate(Settings.model_validate(options)) is needed


def test_a_verdict_of_another_machine_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume that travels: what surrounds int8 depends on the CPU, and the gate says so."""
    chosen = settings(tmp_path)
    path = keep(chosen, figures(lost=0.0))
    assert verdict._place(chosen, CHECKPOINT, "cpu") == path
    monkeypatch.setattr(verdict, "processor", lambda device: ["avx2"])
    assert verdict._place(chosen, CHECKPOINT, "cpu") != path


def test_a_verdict_is_given_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second start asks nobody; a broken file is as good as none. Own pairs have no labels."""
    chosen = settings(tmp_path, pairs=str(write_pairs(tmp_path / "own", 6)))
    first = admit(chosen, CHECKPOINT, "cpu")
    assert first is not None
    assert first.pairs == 6
    assert first.zero_shot is None
    (kept,) = (tmp_path / "cache" / "verdicts").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", None)
        assert admit(Settings(), CHECKPOINT, "cpu") is None  # where no gate is needed
        assert admit(chosen, CHECKPOINT, "cpu") == first
        kept.write_text('{"pairs": 3}')
        with pytest.raises(TypeError):  # it would run the gate
            admit(chosen, CHECKPOINT, "cpu")


def test_a_failed_gate_stops_the_start_unless_the_loss_is_accepted(tmp_path: Path) -> None:
    """The sentence has the figures and the ways out."""
    chosen = settings(tmp_path)
    keep(chosen, figures(lost=0.05))
    with pytest.raises(Refused, match=r"loses 5\.00% of 400 pairs.*--pairs.*--accept-loss on"):
        admit(chosen, CHECKPOINT, "cpu")
    accepted = admit(settings(tmp_path, accept_loss="on"), CHECKPOINT, "cpu")
    assert accepted is not None
    assert not accepted.passed


def test_what_cannot_run_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    """The reason comes from the other process."""
    with pytest.raises(Refused, match=r"^--precision: The device cpu does not compute in float8"):
        admit(settings(tmp_path, precision="float8"), CHECKPOINT, "cpu")
    assert {one.name for one in (tmp_path / "cache").glob("*")} <= {"digests"}  # of the weights


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    """A container's home may be read-only."""
    (tmp_path / "cache").write_text("in the way")
    verdict._keep(verdict._place(settings(tmp_path), CHECKPOINT, "cpu"), b"{}")
    assert (tmp_path / "cache").read_text() == "in the way"


def test_everything_that_could_change_the_verdict_is_in_its_name(tmp_path: Path) -> None:
    """Precision, compiling, device, checkpoint, and the pairs as they are now."""
    own = write_pairs(tmp_path / "own", 3)
    one = verdict._place(settings(tmp_path), CHECKPOINT, "cpu")
    judged = settings(tmp_path, pairs=str(own))
    places = {
        one,
        verdict._place(settings(tmp_path), CHECKPOINT, "cuda:0"),
        verdict._place(settings(tmp_path, text_precision="float32"), CHECKPOINT, "cpu"),
        verdict._place(settings(tmp_path, compile="on"), CHECKPOINT, "cpu"),
        verdict._place(judged, CHECKPOINT, "cpu"),
    }
    (own / "000.txt").write_text("something else altogether")
    places.add(verdict._place(judged, CHECKPOINT, "cpu"))
    assert len(places) == 6
    assert verdict._place(settings(tmp_path, accept_loss="on"), CHECKPOINT, "cpu") == one
