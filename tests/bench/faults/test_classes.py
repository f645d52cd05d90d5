"""What `bench.faults.classes` keeps, as notebook 03 reads it; the short row is in test_faults."""

from pathlib import Path

import orjson
import pytest

from bench.faults.classes import main
from notebooks.figures.latency import flooded


@pytest.mark.timeout(300)
def test_a_flood_in_either_class_is_kept(tmp_path: Path) -> None:
    """In bulk, and in the class of those that it is beside."""
    flags = ["--seconds", "1", "--rounds", "1", "--out", str(tmp_path)]
    assert main(["--name", "classes", *flags]) == 0
    fields = orjson.loads((tmp_path / "classes-cpu.json").read_bytes())
    assert [one["flood"] for one in fields["rounds"]] == ["bulk", "interactive"]
    assert all(one["alone_items_per_s"] > 0 for one in fields["rounds"])
    assert flooded(fields)["no flood"] > 0
