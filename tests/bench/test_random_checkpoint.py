"""A checkpoint that only its dimension makes large."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.random_checkpoint import main, towers, write
from litapi.check import check
from litapi.checkpoint import Checkpoint


def test_it_passes_the_check_of_a_servers_start(tmp_path: Path) -> None:
    """With the dimension that was asked for, as a NaFlex checkpoint."""
    checkpoint = Checkpoint.open(write(tmp_path / "one", 128))
    assert checkpoint.dim == 128
    assert checkpoint.naflex
    assert [finding for finding in check(checkpoint) if not finding.passed] == []


def test_a_seed_gives_the_same_weights(tmp_path: Path) -> None:
    """And another seed gives others."""
    digests = [
        Checkpoint.open(write(tmp_path / name, 64, seed)).weights_digest
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("dim", [0, -64, 100])
def test_a_dimension_that_heads_cannot_share_is_refused(dim: int) -> None:
    """Before anything is written."""
    with pytest.raises(ValueError, match="multiple of 64"):
        towers(dim)


def test_the_command_names_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So that it can be handed on."""
    assert main([str(tmp_path / "made"), "--dim", "64"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "made")
