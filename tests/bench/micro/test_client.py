"""The comparison of clients: a short real run."""

from pathlib import Path

import orjson

from bench.micro.client import main


def test_a_short_run_compares_both_ways(tmp_path: Path) -> None:
    """Fewer bytes by digest, whatever the machine; the rates are of this machine."""
    options = ["--rounds", "1", "--seconds", "0.2", "--pictures", "20", "--dim", "64"]
    assert main([*options, "--out", str(tmp_path)]) in (0, 1)
    (path,) = tmp_path.iterdir()
    whole = orjson.loads(path.read_bytes())
    texts, sent, *_, workers = whole["targets"]
    assert sent["met"]
    assert sent["ratio"] < 0.2
    assert min(texts["ratio"], workers["ratio"]) > 0
    held = [spread for name, spread in whole["figures"].items() if name.endswith("HTTP MB")]
    assert [0 < one["median"] < 1000 for one in held] == [True, True]
