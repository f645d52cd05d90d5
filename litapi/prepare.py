"""Towers made ready on disk before any worker starts, so that no worker loads what makes them.

Converting needs torch, and calibrating NNCF; each tower has a process of its own for it, which
gives its memory back. What fails here fails again in a worker, which knows how to say it.

    python -m litapi.prepare     settings as JSON on standard input
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson

from litapi.checkpoint import Checkpoint, CheckpointError
from litapi.logs import configure
from litapi.messages import KINDS, Kind
from litapi.model.engines import choose_engine
from litapi.model.engines.calibration import Calibration
from litapi.model.engines.making import is_kept, prepare_tower, shelf_in
from litapi.model.served import calibration_of, precision_of
from litapi.settings import Settings, SettingsError

log = logging.getLogger("siglit.prepare")

PASSED_ON = {  # what making a tower depends on; the rest holds secrets
    *("engine", "precision", "text_precision", "image_precision", "compile_cache", "pairs"),
    *("max_num_patches", "log_level", "log_format"),
}


def missing(
    settings: Settings, checkpoint: Checkpoint, devices: Mapping[str, Sequence[str]]
) -> list[Kind]:
    """The towers that a CPU's workers would have to make. Loads no torch. Raises CheckpointError
    where engine, precision and device do not go together."""
    made_here = [
        kind
        for kind in KINDS
        if "openvino" in {choose_engine(settings.engine, device) for device in devices[kind]}
    ]
    return [k for k in made_here if not is_kept(checkpoint, k, *_asked(settings, k))]


def _asked(settings: Settings, kind: Kind) -> tuple[str, Path, Calibration]:
    return precision_of(settings, kind, "cpu"), settings.compile_folder, calibration_of(settings)


def prepare(
    settings: Settings, checkpoint: Checkpoint, devices: Mapping[str, Sequence[str]]
) -> None:
    """Make what is missing, in a process of its own, where it can be kept. Raises as `missing`."""
    kinds = missing(settings, checkpoint, devices)
    if not kinds or not shelf_in(settings.compile_folder).writable():
        return
    log.info("converting for this CPU: %s; once, then it is kept", " and ".join(kinds))
    asked = {"settings": settings.model_dump(include=PASSED_ON), "folder": str(checkpoint.folder)}
    command = [sys.executable, "-m", "litapi.prepare"]

    def run(kind: Kind) -> None:
        said = orjson.dumps({**asked, "kind": kind})
        subprocess.run(command, input=said, stdout=subprocess.DEVNULL, check=False)

    with ThreadPoolExecutor() as pool:  # loading and tracing use one core each
        list(pool.map(run, kinds))


def main() -> int:
    """Make towers for another process."""
    asked = orjson.loads(sys.stdin.buffer.read())
    settings = Settings.model_validate(asked["settings"])
    configure(settings)
    try:
        checkpoint = Checkpoint.open(asked["folder"], kept=settings.compile_folder)
        make(settings, checkpoint, asked["kind"])
    except (CheckpointError, SettingsError) as error:
        log.debug("a tower could not be made: %s", error)
        return 1
    return 0


def make(settings: Settings, checkpoint: Checkpoint, kind: Kind) -> None:
    prepare_tower(checkpoint, kind, *_asked(settings, kind))


if __name__ == "__main__":
    sys.exit(main())
