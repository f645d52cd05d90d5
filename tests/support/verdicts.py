"""Pairs to judge a precision on, and verdicts as a start before would have left them."""

from pathlib import Path
from typing import Any

import orjson

from litapi.checkpoint import DEMO, Checkpoint
from litapi.demo.heldout import pictures, yardstick
from litapi.quality import verdict
from litapi.quality.fidelity import Fidelity
from litapi.settings import Settings

CHECKPOINT = Checkpoint.open(DEMO)


def settings(tmp_path: Path, **options: Any) -> Settings:
    given = {"precision": "int8", "compile_cache": str(tmp_path / "cache"), **options}
    return Settings.model_validate(given)


def figures(lost: float) -> Fidelity:
    ways = ("text_to_image", "image_to_text")
    recall = {
        "exact": {way: {"recall@1": 0.9} for way in ways},
        "found": {way: {"recall@1": 0.9 - lost} for way in ways},
    }
    return Fidelity(400, {}, 1.0, recall, None, {"mean": 0.0, "largest": 0.0}, 0)


def keep(chosen: Settings, found: Fidelity) -> Path:
    """Put a verdict where the last start would have left it."""
    path = verdict._place(chosen, CHECKPOINT, "cpu")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(found.fields()))
    return path


def write_pairs(folder: Path, count: int) -> Path:
    """Drawn pairs as files."""
    folder.mkdir()
    scenes = yardstick(count)
    for number, (scene, picture) in enumerate(
        zip(scenes, pictures(scenes, "yardstick"), strict=True)
    ):
        picture.save(folder / f"{number:03}.png")
        (folder / f"{number:03}.txt").write_text(scene.caption())
    return folder
