"""The cost of a hit: the pure parts, and a short real run of the whole command."""

from pathlib import Path

import orjson
import pytest

from bench.micro.hits import BASE, LIMITS, SIZES, System, forms, main, targets
from bench.micro.sender import Request

NAMES = [BASE, "hello POST", *LIMITS]


def test_costs_are_compared_slice_by_slice_and_with_the_limits() -> None:
    """With "hello GET" right before each: of two rounds the second is on a machine half as fast."""
    costs = [20.0 + 10 * n for n in range(len(NAMES))]
    systems = [System(name, "", 0, Request("/")) for name in NAMES]
    for one, cost in zip(systems, costs, strict=True):
        one.figures |= {"cpu_us": [cost, 2 * cost], "hello_get_us": [20.0, 40.0]}
    assert [one.times for one in systems] == [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]
    judged = list(targets(96, systems))
    assert [target.at_most for target in judged] == [LIMITS[name] for name in NAMES[2:]]
    assert [target.met for target in judged] == [False, True, False, False, False]


def test_no_two_requests_under_way_are_equal() -> None:
    """Or they would share one look-up, and cost less than they do."""
    singles, batches = (forms()[name].bodies for name in ("base64", "octets, 64 items"))
    assert len(set(singles)) == len(singles)
    texts = [text for body in batches for text in orjson.loads(body)["input"]]
    assert len(set(texts)) == len(texts)


def test_a_short_run_is_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On real servers; what it costs does not matter here."""
    arguments = ["--dims", "96", "--rounds", "1", "--seconds", "1", "--concurrency", "4"]
    assert main([*arguments, "--out", str(tmp_path)]) in (0, 1)
    assert "memory base64" in capsys.readouterr().out
    (path,) = tmp_path.iterdir()
    result = orjson.loads(path.read_bytes())
    (measured,) = result["dims"]
    names = [one["name"] for one in measured["systems"]]
    assert set(NAMES) < set(names)
    limited = {f"{name}, 96 numbers" for name in LIMITS}
    digests = {
        f"{size} by digest ÷ {one}"
        for size in SIZES
        for one in ("memory base64", f"picture {size} raw")
    }
    assert {target["name"] for target in result["targets"]} == limited | digests
    for one in measured["systems"]:
        assert all(one[name]["low"] > 0 for name in ("cpu_us", "hello_get_us", "requests_per_s"))
        assert one["hits_pct"] is None or one["hits_pct"] >= 99.9
