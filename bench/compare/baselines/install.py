"""Systems that need other packages than this project, each in a virtual environment of its own.

    python -m bench.compare.baselines.install infinity

The environment lies in `build/venvs/NAME`. It gets the same release of torch as this one.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from bench.rig.child import Absent
from bench.rig.command import described
from bench.rig.server_process import ROOT

FOLDER = ROOT / "build" / "venvs"
PACKAGES = {
    # transformers: the newest it runs with. Its own extra for pictures brings a torchvision of
    # another build, which then fails to load; without it, its reader of pictures lacks aiohttp
    "infinity": (
        "infinity-emb[server,torch]==0.0.78", "transformers==4.57.6", "pillow", "aiohttp==3.14.5",
    ),
}  # fmt: skip


def program(name: str, command: str) -> Path:
    """A command out of the environment of that name.

    Raises:
        Absent: it was not installed.
    """
    path = FOLDER / name / "bin" / command
    if not path.exists():
        raise Absent(f"not installed: python -m bench.compare.baselines.install {name}")
    return path


def install(name: str) -> Path:
    """Make the environment anew; the folder.

    Raises:
        subprocess.CalledProcessError: pip failed, and said why.
    """
    folder = FOLDER / name
    venv.create(folder, clear=True, with_pip=True)
    torch = f"torch=={importlib.metadata.version('torch').partition('+')[0]}"
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, torch, *PACKAGES[name]], check=True)
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    parser = described("bench.compare.baselines.install", __doc__)
    parser.add_argument("name", choices=PACKAGES)
    try:
        install(parser.parse_args(arguments).name)
    except subprocess.CalledProcessError as error:
        print(f"bench: pip failed with {error.returncode}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
