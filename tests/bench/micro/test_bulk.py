"""The measurement of bulk embedding: all sides do the work, and the ratios are theirs."""

from pathlib import Path

import orjson
import pytest

from bench.micro.bulk import main


def test_a_run_is_ratios_of_rates_that_were_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One short round on the demo; what its ratios are worth depends on the machine."""
    options = ["--size", "demo", "--kinds", "text", "--rounds", "1", "--seconds", "0.2"]
    ending = main([*options, "--out", str(tmp_path)])
    result = orjson.loads((tmp_path / "bulk-cpu.json").read_bytes())
    tower = result["towers"][0]
    rates = {way: tower[f"{way}_rows_per_second"]["median"] for way in ("bare", "bulk", "engine")}
    assert min(rates.values()) > 0
    for way in ("bulk", "engine"):
        found = tower["ratios"][way]
        assert found == pytest.approx(rates[way] / rates["bare"], rel=0.01, abs=0.001)
    assert ending == (0 if all(target["met"] for target in result["targets"]) else 1)
    shown = capsys.readouterr().out
    assert "text, bulk ÷ bare" in shown
    assert "text, engine ÷ bare" in shown
