"""Look-ups through the store against one GET each: the table, and a short real run."""

import asyncio
from functools import partial
from pathlib import Path

import orjson
import pytest

from bench.micro.lookups import LOST, PLAIN, STORE, LookupsLost, System, main, targets
from bench.rig.command import Figures
from cache import RedisStore


async def found(_key: bytes) -> object:
    await asyncio.sleep(0)
    return b"value"


async def lost(_key: bytes) -> object:
    await asyncio.sleep(0)
    return None


def made(name: str, rates: list[float]) -> System:
    return System(name, 32, found, Figures(list, per_s=rates), found=1)


SYSTEMS = [made(STORE, [80.0, 50.0]), made(PLAIN[0], [10.0, 10.0]), made(PLAIN[1], [20.0, 20.0])]


def test_the_store_is_held_against_both_ways_of_redis_py() -> None:
    """By the ratio of rates."""
    assert [(one.ratio, one.met) for one in targets(SYSTEMS)] == [(6.5, True), (3.25, False)]


def test_what_was_lost_is_not_counted_as_found() -> None:
    """A look-up that was given up is quick, and worth nothing."""
    system = System(STORE, 4, lost)
    with pytest.raises(LookupsLost):
        asyncio.run(system.measure([b"a", b"b", b"c", b"d"], 0.05))


def test_a_short_run_is_complete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real Redis; how quick it is does not matter here, so nothing is given up."""
    monkeypatch.setattr("bench.micro.lookups.RedisStore", partial(RedisStore, budget=60.0))
    arguments = ["--workers", "4", "--rounds", "2", "--seconds", "0.1", "--out", str(tmp_path)]
    assert main(arguments) in (0, 1)
    assert STORE in capsys.readouterr().out
    (path,) = tmp_path.iterdir()
    result = orjson.loads(path.read_bytes())
    assert [one["name"] for one in result["systems"]] == [STORE, *PLAIN]
    assert len(result["targets"]) == len(PLAIN)
    for one in result["systems"]:
        assert one["lost"] <= LOST * one["found"]
        assert len(one["per_s"]["rounds"]) == 2
        assert min(one["per_s"]["low"], one["p50_us"]["low"], one["cpu_us"]["low"]) > 0
