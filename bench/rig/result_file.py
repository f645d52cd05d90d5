"""Where a measurement is kept: `bench/results/NAME-DEVICE.json`, with the day and the machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from bench.rig.machine import Machine

RESULTS = Path(__file__).parent.parent / "results"


def save(
    name: str,
    fields: Mapping[str, Any],
    folder: Path = RESULTS,
    measured_on: str | None = None,
    machine: Machine | None = None,
) -> Path:
    """Write what was measured on this machine; what the file held before is replaced.

    `measured_on` is the device where it is not the one that `device` would name, `machine` what was
    read before.
    """
    machine = machine or Machine.read()
    whole = {"date": datetime.now(UTC).date().isoformat(), "machine": asdict(machine), **fields}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{measured_on or device(machine)}.json"
    path.write_bytes(orjson.dumps(whole, option=orjson.OPT_INDENT_2) + b"\n")
    return path


def device(machine: Machine) -> str:
    """`cpu`, or the first GPU's name in small letters."""
    return slug((machine.gpu or "cpu").splitlines()[0])


def slug(name: str) -> str:
    """Small letters, digits and dashes of a name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
