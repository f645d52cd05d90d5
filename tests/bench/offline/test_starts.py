"""Starts and memory of real servers, with the checkpoint that ships."""

from pathlib import Path

import orjson

from bench.offline.starts import FIRST, ONE, SECOND, TWO, main


def test_starts_and_workers_are_measured(tmp_path: Path) -> None:
    """Of servers that find no compiler; two workers hold more than one."""
    asked = ["--model", "demo", "--precision", "float32", "--rounds", "1", "--seconds", "0"]
    assert main([*asked, "--out", str(tmp_path)]) in (0, 1)
    kept = orjson.loads((tmp_path / "starts-cpu.json").read_bytes())
    assert kept["precision"] == "float32"
    found = {name: one["median"] for name, one in kept["figures"].items()}
    assert found[FIRST] > 0
    assert found[SECOND] > 0
    for kind in ("resident", "proportional"):
        assert found[f"{TWO}, {kind} MB"] > 1.1 * found[f"{ONE}, {kind} MB"] > 50
