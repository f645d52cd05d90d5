"""What the capacity model starts from: measured figures, and assumptions that say they are such.

A figure that a results file holds is read from it. One that nobody measured here is an assumption
with its source; so whoever has better numbers knows which to replace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from bench.rig.result_file import RESULTS

ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class Figure:
    """A number, its unit, and where it comes from."""

    value: float
    unit: str
    source: str

    @property
    def measured(self) -> bool:
        """Whether it comes from a results file."""
        return not self.source.startswith(ASSUMED)


def assumed(value: float, unit: str, why: str) -> Figure:
    """A figure that nobody measured here."""
    return Figure(value, unit, f"{ASSUMED}: {why}")


ASSUMPTIONS = {
    "images among the items": assumed(0.5, "share", "half pictures, half texts"),
    "found in the cache": assumed(0.9, "share", "a busy catalogue; read it off the dashboard"),
    "items in a request": assumed(8, "items", "a client that batches a little"),
    "front work of a job": assumed(130e-6, "core s", "replaced by hits-cpu.json"),
    "front work of a miss": assumed(20e-6, "core s", "replaced by hits-cpu.json"),
    "a picture on the wire": assumed(60e3, "bytes", "a JPEG of 640 × 480"),
    "a text on the wire": assumed(100, "bytes", "a caption with its JSON"),
    "a vector in Redis": assumed(5324, "bytes", "1,152 numbers; tests/deploy/test_capacity.py"),
    "a vector is kept": assumed(86_400, "s", "a day's misses stay; then the least used leave"),
    "load on a core or card": assumed(0.6, "share", "room for peaks and for a lost machine"),
    "cores of a machine": assumed(32, "cores", "a common size"),
    "cards of a GPU machine": assumed(8, "cards", "a common size"),
    "cores of a GPU machine": assumed(128, "cores", "a common size"),
    "memory of a Redis shard": assumed(48e9, "bytes", "of a machine with 64 GB"),
    "network of a machine": assumed(25e9, "bit/s", "a common size"),
    "share of a card's peak": assumed(0.5, "share", "not measured here: decode and odd batches"),
    # reference figures of so400m-patch16-naflex at 790 TFLOP/s, an H200's measured bfloat16 rate
    "pictures a card embeds": assumed(3580, "a second", "not measured here: 220.5 GFLOP each"),
    "texts a card embeds": assumed(14_900, "a second", "not measured here: 53.1 GFLOP each"),
    "decoding a picture": assumed(3.5e-3, "core s", "640 × 480; replaced by pixels-cpu.json"),
}


@dataclass(slots=True)
class Inputs:
    """Every figure by its name, and what is missing."""

    figures: dict[str, Figure] = field(default_factory=lambda: dict(ASSUMPTIONS))
    missing: list[str] = field(default_factory=list)  # results files, and what makes them

    @classmethod
    def read(cls, folder: Path = RESULTS) -> Inputs:
        """The assumptions, and over them whatever was measured."""
        inputs = cls()
        for name, command, take in (
            ("hits-cpu.json", "bench.micro.hits", _hits),
            ("lookups-cpu.json", "bench.micro.lookups", _lookups),
            ("pixels-cpu.json", "bench.micro.pixels", _pixels),
            ("offline-cpu.json", "bench.offline", _offline),
        ):
            path = folder / name
            if not path.exists():
                inputs.missing.append(f"{name} (python -m {command})")
                continue
            result = orjson.loads(path.read_bytes())
            inputs.figures |= take(result, f"{name}, {result['machine']['cpu']}")
        return inputs

    def __getitem__(self, name: str) -> float:
        """The value of a figure."""
        return self.figures[name].value

    def __contains__(self, name: str) -> bool:
        """Whether there is such a figure."""
        return name in self.figures


def _hits(result: Mapping[str, Any], source: str) -> dict[str, Figure]:
    """The front's work, split by two sizes of request into what a request and an item cost.

    A request with misses has a job on top, and each of its misses was looked up before.
    """
    widest = max(result["dims"], key=lambda one: int(one["dim"]))
    cpu = _seconds(widest)
    request, item = _split(cpu, "Redis base64")
    figures = {
        "front work of a request": Figure(request, "core s", source),
        "front work of a Redis hit": Figure(item, "core s", source),
        "numbers of a vector": Figure(float(widest["dim"]), "numbers", source),
    }
    for one in (dim for dim in map(_seconds, result["dims"]) if "computed base64" in dim):
        computed, miss = _split(one, "computed base64")
        figures["front work of a job"] = Figure(max(0.0, computed - request), "core s", source)
        figures["front work of a miss"] = Figure(item + miss, "core s", source)
    return figures


def _seconds(dim: Mapping[str, Any]) -> dict[str, float]:
    """System → seconds of CPU time for a request."""
    return {one["name"]: one["cpu_us"]["median"] / 1e6 for one in dim["systems"]}


def _split(cpu: Mapping[str, float], name: str) -> tuple[float, float]:
    """What a request costs without its items, and what an item does."""
    single, many = cpu[name], cpu[f"{name}, 64 items"]
    item = (many - single) / 63
    return single - item, item


def _lookups(result: Mapping[str, Any], source: str) -> dict[str, Figure]:
    """What one Redis did, with its client on the same two cores."""
    own = [one for one in result["systems"] if one["name"] == "RedisStore.get"]
    best = max(one["per_s"]["median"] for one in own)
    return {"look-ups of a Redis": Figure(best, "a second", source)}


def _pixels(result: Mapping[str, Any], source: str) -> dict[str, Figure]:
    """CPU time to decode and prepare a picture of 640 × 480, and its bytes."""
    small = [row for row in result["rows"] if (row["width"], row["height"]) == (640, 480)]
    row = max(small, key=lambda one: one["own_ms"]["median"])
    return {
        "decoding a picture": Figure(row["own_ms"]["median"] / 1e3, "core s", source),
        "a picture on the wire": Figure(row["bytes"], "bytes", source),
    }


def _offline(result: Mapping[str, Any], source: str) -> dict[str, Figure]:
    """The best rate of each tower for each core, in whatever precision."""
    found = {}
    for tower, name in (("image", "pictures a core embeds"), ("text", "texts a core embeds")):
        rows = [r for r in result["rows"] if r["tower"] == tower and "items_per_s" in r]
        if rows:
            best = max(row["items_per_s"]["median"] / row["threads"] for row in rows)
            found[name] = Figure(best, "a second", f"{source}, {result['model']}")
    return found
