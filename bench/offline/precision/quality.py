"""The gate's figures on the demo checkpoint for each way to compute, each in a fresh process."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from tqdm import tqdm

from bench.offline.precision.system import System
from litapi.checkpoint import DEMO, Checkpoint
from litapi.quality.gate import Gate
from litapi.settings import Settings

Way = tuple[str, bool]  # precision, compiled


def qualities(systems: Sequence[System], threads: int) -> dict[Way, dict[str, Any]]:
    """Both towers in a way of any of `systems`."""
    ways = list(dict.fromkeys((one.precision, one.compiled) for one in systems))
    context = multiprocessing.get_context("spawn")
    found = {}
    for precision, compiled in tqdm(ways, desc="quality", unit="way", leave=False, disable=None):
        with ProcessPoolExecutor(1, context) as pool:
            found[precision, compiled] = pool.submit(quality, precision, compiled, threads).result()
    return found


def quality(precision: str, compiled: bool, threads: int) -> dict[str, Any]:
    """As JSON holds it."""
    asked = {"precision": precision, "compile": "on" if compiled else "off", "threads": threads}
    return Gate(Settings.model_validate(asked), Checkpoint.open(DEMO), "cpu").judge().fields()
