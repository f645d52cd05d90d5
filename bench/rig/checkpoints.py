"""The checkpoints that measurements are taken on, by short names.

Those of true size have random weights, and are made where they are missing.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.rig.random_checkpoint import DEMO
from bench.rig.server_process import ROOT

SIZES = {"base": "base-patch16-224", "so400m": "so400m-patch16-naflex"}
RANDOM = ROOT / "build" / "checkpoints"  # made once: 1.5 GB of base, 4.5 GB of so400m


def checkpoint(name: str) -> Path:
    """The folder of `demo`, of a size (random weights, made where they are missing), or itself."""
    if name not in SIZES:
        return DEMO if name == "demo" else Path(name)
    size = SIZES[name]
    folder = RANDOM / size
    if not folder.exists():
        RANDOM.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=RANDOM) as home:
            made = Path(home) / size
            make = [sys.executable, "-m", "bench.rig.random_checkpoint"]
            command = [*make, str(made), "--size", size]
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            shutil.move(made, folder)
    return folder
