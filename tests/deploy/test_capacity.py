"""The capacity model: its inputs were measured or say so, its sums are plain, the document true."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from bench.rig.redis_server import RedisServer
from bench.rig.result_file import RESULTS
from cache.codec import Entry, encode
from deploy.capacity import RATES, Demand, changed, main, report, written
from deploy.inputs import ASSUMPTIONS, Inputs

SCALING = Path(__file__).parent.parent.parent / "docs" / "scaling.md"


def made(folder: Path) -> Inputs:
    """Inputs of results with round numbers."""
    machine = {"machine": {"cpu": "a processor"}}

    def us(name: str, value: float) -> dict[str, object]:
        return {"name": name, "cpu_us": {"median": value}}

    systems = [
        us("Redis base64", 200.0),
        us("Redis base64, 64 items", 830.0),
        us("computed base64", 1000.0),
        us("computed base64, 64 items", 1630.0),
    ]
    store = {"name": "RedisStore.get", "per_s": {"median": 50_000}}
    picture = {"width": 640, "height": 480, "bytes": 50_000, "own_ms": {"median": 4.0}}
    rates = [
        {"tower": tower, "threads": 2, "items_per_s": {"median": rate}}
        for tower, rate in (("image", 20.0), ("image", 40.0), ("text", 100.0))
    ]
    refused = {"tower": "image", "precision": "float8", "refused": "no"}
    results: dict[str, dict[str, Any]] = {
        "hits-cpu": {"dims": [{"dim": 96, "systems": []}, {"dim": 1000, "systems": systems}]},
        "lookups-cpu": {"systems": [store, {"name": "redis-py GET"}]},
        "pixels-cpu": {"rows": [picture]},
        "offline-cpu": {"model": "base", "rows": [*rates, refused]},
    }
    for name, result in results.items():
        (folder / f"{name}.json").write_bytes(orjson.dumps({**machine, **result}))
    return Inputs.read(folder)


def test_what_was_measured_is_read(tmp_path: Path) -> None:
    """The cost of a request and of an item come apart by two sizes of request."""
    inputs = made(tmp_path)
    assert inputs.missing == []
    assert inputs["front work of a Redis hit"] == pytest.approx(10e-6)
    assert inputs["front work of a request"] == pytest.approx(190e-6)
    assert inputs["front work of a job"] == pytest.approx(800e-6)  # beyond that of a request
    assert inputs["front work of a miss"] == pytest.approx(20e-6)  # it was looked up before
    assert inputs["look-ups of a Redis"] == 50_000
    assert inputs["decoding a picture"] == pytest.approx(4e-3)
    assert inputs["pictures a core embeds"] == 20.0  # the best row, for each of its two threads
    assert inputs.figures["texts a core embeds"].measured


def test_the_arithmetic_of_a_rate(tmp_path: Path) -> None:
    """By hand: 1,000 items, half of them pictures, nine of ten found, cores at 60 %."""
    inputs = made(tmp_path)
    demand = Demand.of(1000.0, inputs)
    assert demand.decode_cores == pytest.approx(500 * 0.1 * 4e-3 / 0.6)
    assert demand.tower_cores == pytest.approx((50 / 20 + 50 / 50) / 0.6)
    request = 190e-6 + (1 - 0.9**8) * 800e-6
    front = 1000 * (request / 8 + 10e-6 * 0.9 + 20e-6 * 0.1) / 0.6
    assert demand.front_cores == pytest.approx(front)
    assert demand.redis_bytes == pytest.approx(100 * 86_400 * 5324)
    ten = Demand.of(10_000.0, inputs)
    assert ten.cards == pytest.approx(10 * demand.cards)
    everything = Demand.of(1000.0, changed(inputs, ["found in the cache=1"]))
    assert (everything.decode_cores, everything.cards, everything.redis_bytes) == (0, 0, 0)


def test_without_a_result_it_says_so(tmp_path: Path) -> None:
    """And names the command that makes it, in place of a guess."""
    made(tmp_path)
    (tmp_path / "offline-cpu.json").unlink()
    inputs = Inputs.read(tmp_path)
    assert inputs.missing == ["offline-cpu.json (python -m bench.offline)"]
    assert Demand.of(1000.0, inputs).tower_cores is None
    assert "not measured" in report(inputs, RATES)


def test_every_assumption_says_that_it_is_one() -> None:
    """And which of them nobody measured here."""
    assert all(one.source.startswith("assumed: ") for one in ASSUMPTIONS.values())
    assert not any(one.measured for one in ASSUMPTIONS.values())


def test_a_vector_takes_as_much_of_a_real_redis_as_is_assumed() -> None:
    """Key, value as the cache writes it, and what Redis itself adds: within a tenth."""
    many = 4000
    with RedisServer() as redis, redis.client() as client:
        before = client.info("memory")["used_memory"]
        for _ in range(many):
            key = b"sl2:" + os.urandom(41)
            value = encode(key, Entry(os.urandom(4 * 1152), 64, False))
            client.set(key, value, ex=86_400)
        each = (client.info("memory")["used_memory"] - before) / many
    assert each == pytest.approx(ASSUMPTIONS["a vector in Redis"].value, rel=0.1)


def test_the_document_shows_what_the_command_prints() -> None:
    """New results make the document old: python -m deploy.capacity --write docs/scaling.md."""
    text = SCALING.read_text()
    assert written(text, report(Inputs.read(RESULTS), RATES)) == text


@pytest.mark.parametrize("setting", ["no such input=1", "found in the cache=much"])
def test_a_wrong_setting_is_named(setting: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, as everywhere."""
    assert main(["--set", setting]) == 2
    assert capsys.readouterr().err.startswith("deploy.capacity: ")


def test_a_document_without_the_marks_is_left_alone(tmp_path: Path) -> None:
    """Nothing is written over."""
    path = tmp_path / "other.md"
    path.write_text("something else")
    assert main(["--write", str(path)]) == 2
    assert path.read_text() == "something else"
