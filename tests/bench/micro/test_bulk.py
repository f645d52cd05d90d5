"""The measurement of bulk embedding: both sides do the work, and the ratio is theirs."""

from pathlib import Path

import orjson
import pytest

from bench.micro.bulk import main


def test_a_run_is_a_ratio_of_two_rates_that_were_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One short round on the demo; what its ratio is worth depends on the machine."""
    options = ["--size", "demo", "--kinds", "text", "--rounds", "1", "--seconds", "0.2"]
    ending = main([*options, "--out", str(tmp_path)])
    result = orjson.loads((tmp_path / "bulk-cpu.json").read_bytes())
    tower = result["towers"][0]
    bare, bulk = (tower[f"{side}_rows_per_second"]["median"] for side in ("bare", "bulk"))
    assert min(bare, bulk) > 0
    assert tower["ratio"] == pytest.approx(bulk / bare, rel=0.01, abs=0.001)
    assert ending == (0 if result["targets"][0]["met"] else 1)
    assert "text, bulk ÷ bare" in capsys.readouterr().out
