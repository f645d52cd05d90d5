"""Whether the precision that was asked for may be served: the gate's verdict, kept on disk.

The gate needs torch and both towers, and the process that starts the service loads neither, so the
gate runs in a process of its own, before any worker. Its figures are kept under the fingerprints of
both towers: the same checkpoint in the same precision is judged once, not at every start.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson

from litapi.checkpoint import Checkpoint
from litapi.messages import KINDS
from litapi.process import processor, version
from litapi.quality.fidelity import Fidelity
from litapi.quality.pairs import captioned
from litapi.serving import Service
from litapi.settings import Settings

log = logging.getLogger("siglit.verdict")

GATED = ("float16", "int8", "int8-weights", "float8")  # float32 and bfloat16 need no proof
PACKAGES = ("torch", "torchao", "openvino", "nncf")
GATE_VERSION = 3  # raised when the gate asks for something else
PASSED_ON = {  # what the gate must know; the rest holds secrets and is none of its business
    "precision", "text_precision", "image_precision", "engine", "compile", "compile_cache", "pairs",
    "threads", "max_num_patches", "log_level", "log_format",
}  # fmt: skip


class Refused(Exception):
    """The start is refused, in one public sentence."""


def needs_gate(settings: Settings) -> bool:
    """Whether a tower is to be served in a precision that must show what it is worth."""
    return any(settings.precision_of(kind) in GATED for kind in KINDS)


def admit(settings: Settings, checkpoint: Checkpoint, device: str) -> Fidelity | None:
    """The gate's figures for what is to be served; None where no gate is needed. Raises Refused
    where the towers fail it without `accept_loss`, or cannot run at all."""
    if not needs_gate(settings):
        return None
    path = _place(settings, checkpoint, device)
    fidelity = _kept(path) or _judge(settings, checkpoint, device, path)
    if fidelity.passed:
        log.info("the quality gate is passed: %s", fidelity.sentence)
        return fidelity
    if settings.accept_loss == "off":
        raise Refused(
            f"the quality gate is failed: {fidelity.sentence} Serve another precision, judge it on "
            "pictures of your own with --pairs, or accept it with --accept-loss on."
        )
    log.warning("the quality gate is failed, and the loss accepted: %s", fidelity.sentence)
    return fidelity


def _place(settings: Settings, checkpoint: Checkpoint, device: str) -> Path:
    """The file of this verdict: everything that could change it is in its name."""
    prints = [one.hex for one in Service(settings, checkpoint).fingerprints().values()]
    versions = [version(name) for name in PACKAGES]
    kind = device.partition(":")[0]
    whole = [
        GATE_VERSION,
        prints,
        versions,
        kind,
        settings.engine,
        processor(kind),
        _pairs(settings),
    ]
    name = hashlib.sha256(json.dumps(whole).encode()).hexdigest()
    return settings.compile_folder / "verdicts" / f"{name}.json"


def _pairs(settings: Settings) -> list[list[Any]]:
    if not settings.pairs:
        return []
    files = [f for one in captioned(Path(settings.pairs)) for f in (one, one.with_suffix(".txt"))]
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _kept(path: Path) -> Fidelity | None:
    try:
        return Fidelity(**orjson.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _judge(settings: Settings, checkpoint: Checkpoint, device: str, path: Path) -> Fidelity:
    log.info("judging the quality of this precision beside float32; once, then it is kept")
    asked = {
        "settings": settings.model_dump(include=PASSED_ON),
        "folder": str(checkpoint.folder),
        "name": checkpoint.name,
        "revision": checkpoint.revision,
        "device": device,
    }
    command = [sys.executable, "-m", "litapi.quality.gate"]
    done = subprocess.run(command, input=orjson.dumps(asked), stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise Refused("the quality gate could not be run; the lines above say more")
    answer = orjson.loads(done.stdout)
    if "refused" in answer:
        raise Refused(answer["refused"])
    _keep(path, done.stdout)
    return Fidelity(**answer)


def _keep(path: Path, data: bytes) -> None:
    """A folder that cannot be written costs the next start time, nothing else."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_bytes(data)
        partial.replace(path)
