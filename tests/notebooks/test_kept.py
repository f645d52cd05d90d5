"""Committed results: there, or missed in one clear sentence."""

from pathlib import Path

from bench.rig.result_file import save
from notebooks.figures.kept import Kept


def test_a_result_is_shown_and_says_when_and_where_it_was_measured(tmp_path: Path) -> None:
    """A figure without its machine is none."""
    path = save("thing", {"rows": [1, 2]}, tmp_path, measured_on="cpu")
    kept = Kept.of(path.stem, "python -m bench.thing", tmp_path)
    assert kept.show(lambda fields: sum(fields["rows"])) == 3
    assert "thing-cpu.json: measured on " in repr(kept)


def test_a_missing_result_says_how_to_make_it_and_shows_nothing(tmp_path: Path) -> None:
    """A notebook runs on, on a fresh checkout too."""
    kept = Kept.of("thing-cpu", "python -m bench.thing", tmp_path)
    assert "run `python -m bench.thing` first" in repr(kept)
    assert kept.show(len) is None
