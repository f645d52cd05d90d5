"""Ratios of figures from several steps, on which decisions depend (docs/gpu.md).

A line whose figures were not measured is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from bench.compare.scenario import READY

# What this service is to replace: texts a second over HTTP of so400m-naflex on an RTX 3090, of
# which the maker says so many TFLOP/s, dense, in bfloat16.
SEED_TEXTS, SEED_TFLOPS = 520.0, 71.0
Row = dict[str, Any]


def lines(rows: Sequence[Row]) -> dict[str, Row]:
    steps = {row["step"]: row for row in rows}
    found: dict[str, Row] = {}
    for line in LINES:
        with suppress(KeyError, ValueError):  # a step was skipped, or cut off before
            found[line.__name__] = line(steps)
    return found


def bare_of_ceiling(steps: dict[str, Row]) -> Row:
    """The best batch of each tower beside what the card's own product reaches."""
    return {tower: _best(steps, tower)["of_ceiling"] for tower in ("image", "text")}


def compiled_of_eager(steps: dict[str, Row]) -> Row:
    """Items a second of the compiled image tower, by precision, ÷ the eager one's best."""
    eager = _rate(_best(steps, "image"))
    rows = [row for row in steps["compiled"]["rows"] if "refused" not in row]
    return {row["precision"]: round(_rate(row) / eager, 3) for row in rows}


def http_of_bare(steps: dict[str, Row]) -> Row:
    """Items a second of each server at its best level ÷ those of the bare tower."""
    both = [_served(steps[step]) for step in ("images", "texts")]
    return {name: round(rate / bare, 3) for bare, served in both for name, rate in served.items()}


def image_workers(steps: dict[str, Row]) -> Row:
    """Items a second with several image workers ÷ with one: the default is to be decided by it."""
    _, served = _served(steps["images"])
    return {name: round(rate / served["1 image"], 3) for name, rate in served.items()}


def seed(steps: dict[str, Row]) -> Row:
    """Texts a second over HTTP ÷ the seed's, as they are and multiplied out to this card."""
    _, served = _served(steps["texts"])
    scaled = SEED_TEXTS * _best(steps, "text")["ceiling_gflop_per_s"] / 1e3 / SEED_TFLOPS
    best = max(served.values())
    of_seed = {"of_seed": round(best / SEED_TEXTS, 2), "of_seed_here": round(best / scaled, 2)}
    return {"texts_per_s": best, "seed": SEED_TEXTS, "seed_here": round(scaled, 1), **of_seed}


def waiting(steps: dict[str, Row]) -> Row:
    """The share of a batch's time in which the device waits for the host, by batch."""
    found: Row = {"image": {}, "text": {}}
    for row in steps["eager"]["rows"]:
        found[row["tower"]][str(row["batch"])] = row["waiting"]
    return found


def padding(steps: dict[str, Row]) -> Row:
    """By mix: the share that is padding, and how much faster all would be without any."""
    found: Row = {}
    for row in steps["eager"]["padding"]:
        best = row["alike_patches_per_s"]
        gains = {name: round(best / row[f"{way}patches_per_s"], 3)
                 for name, way in (("gain", ""), ("gain_by_cost", "by_cost_"))}  # fmt: skip
        found[str(row["max_num_patches"])] = {"share": row["padding"], **gains}
    return found


LINES = (bare_of_ceiling, compiled_of_eager, http_of_bare, image_workers, seed, waiting, padding)


def _best(steps: dict[str, Row], tower: str) -> Row:
    rows = [row for row in steps["eager"]["rows"] if row["tower"] == tower and "refused" not in row]
    return max(rows, key=_rate)


def _rate(row: Row) -> float:
    return float(row["items_per_s"]["median"])


def _served(step: Row) -> tuple[float, dict[str, float]]:
    """The best rate of the bare tower, and of each server."""
    best: dict[str, float] = {}
    for point in step["points"]:
        best[point["system"]] = max(best.get(point["system"], 0.0), point["items_per_s"])
    return best.pop(READY), best
