"""Only the run that was begun is gone on with, and by one process at a time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.bulk.output import SPOKEN, Manifest, held
from deploy.bulk.source import BulkError

HERE = Manifest("input", "model", "limits", "text", "caption", 1024)


def test_the_same_run_is_resumed(tmp_path: Path) -> None:
    """Written once, found equal after that."""
    for _ in range(2):
        with held(tmp_path / "out"):
            HERE.settle(tmp_path / "out")


@pytest.mark.parametrize("name", SPOKEN)
def test_another_run_is_refused_and_the_difference_named(tmp_path: Path, name: str) -> None:
    """Blocks of two runs in one folder would be nobody's vectors."""
    HERE.settle(tmp_path)
    other: Any = {name: 7 if name in ("block_rows", "version") else "another"}
    with pytest.raises(BulkError) as refusal:
        replace(HERE, **other).settle(tmp_path)
    assert SPOKEN[name] in str(refusal.value)


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    """Somebody's files are no run; and a damaged manifest is no reason to begin anew."""
    file = tmp_path / "holiday.png"
    file.write_bytes(b"")
    with pytest.raises(BulkError, match="not empty"):
        HERE.settle(tmp_path)
    assert [*tmp_path.iterdir()] == [file]
    file.rename(tmp_path / "manifest.json")
    with pytest.raises(BulkError, match="cannot be read"):
        HERE.settle(tmp_path)


def test_two_runs_do_not_write_to_one_folder(tmp_path: Path) -> None:
    """The second is told so; the lock is gone with the first."""
    with held(tmp_path), pytest.raises(BulkError, match="another run"), held(tmp_path):
        pass
    with held(tmp_path):
        pass
