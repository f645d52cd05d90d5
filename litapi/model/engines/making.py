"""An OpenVINO tower of a checkpoint: from disk where it is kept, else converted now.

Only converting loads torch, and only calibrating NNCF. A tower that is kept but no longer gives
what transformers gave when it was made is made anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from litapi.checkpoint import Checkpoint
from litapi.messages import Kind
from litapi.model.engines.calibration import Calibration
from litapi.model.engines.converted import Converted, Shelf, key_of
from litapi.model.engines.openvino_engine import OpenVinoImages, OpenVinoText
from litapi.model.probes import near
from litapi.settings import cache_folder

TOWERS: Mapping[Kind, Any] = {"text": OpenVinoText, "image": OpenVinoImages}


def open_tower(
    kind: Kind,
    checkpoint: Checkpoint,
    precision: str,
    threads: int,
    cache: Path | None,
    calibration: Calibration | None,
) -> Any:
    """One of TOWERS, kept in `cache` or the user's folder."""
    shelf, used = shelf_in(cache), _used(precision, calibration)
    key = _key(checkpoint, kind, used)
    kept = shelf.find(key)
    if kept is not None:
        tower = TOWERS[kind](kept, precision, threads)
        if near(tower.submit(kept.probes.items)(), kept.probes.vectors):
            return tower
        shelf.drop(key)
    return TOWERS[kind](make(checkpoint, kind, shelf, used), precision, threads)


def make(checkpoint: Checkpoint, kind: Kind, shelf: Shelf, used: Calibration | None) -> Converted:
    """Convert one tower, or calibrate the one that was converted, and keep it."""
    if used is None:
        from litapi.model.engines.conversion import convert

        return shelf.keep(_key(checkpoint, kind, None), convert(checkpoint, kind))
    plain = shelf.find(_key(checkpoint, kind, None)) or make(checkpoint, kind, shelf, None)
    return shelf.keep(_key(checkpoint, kind, used), used.quantized(checkpoint, kind, plain))


def prepare_tower(
    checkpoint: Checkpoint, kind: Kind, precision: str, cache: Path, calibration: Calibration
) -> None:
    """Make one tower, unless it is kept."""
    if not is_kept(checkpoint, kind, precision, cache, calibration):
        make(checkpoint, kind, shelf_in(cache), _used(precision, calibration))


def is_kept(
    checkpoint: Checkpoint, kind: Kind, precision: str, cache: Path, calibration: Calibration
) -> bool:
    """Whether a worker would find that tower."""
    return shelf_in(cache).has(_key(checkpoint, kind, _used(precision, calibration)))


def _used(precision: str, calibration: Calibration | None) -> Calibration | None:
    return (calibration or Calibration()) if precision == "int8" else None


def _key(checkpoint: Checkpoint, kind: Kind, used: Calibration | None) -> str:
    return key_of(checkpoint, kind, used.digest(checkpoint, kind) if used else "")


def shelf_in(cache: Path | None) -> Shelf:
    """The converted towers under a cache folder, by default the user's."""
    return Shelf((cache or cache_folder()) / "models")
