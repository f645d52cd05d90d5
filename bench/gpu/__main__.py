"""All that matters on a GPU, measured in nine minutes on a machine that has torch and no network.

    python -m bench.gpu --wheels build/wheels --out "$OUT"    # wheels: bench/gpu/wheels.sh
    python -m bench.gpu --device cpu --demo                   # a dry run of every step, tiny sizes

The steps (docs/gpu.md) run one after another, each in a process of its own with a time of its own.
gpu-DEVICE.json, or gpu-dry-run.json, is written anew after each. Exit code 0: all steps ended well;
1: one failed, was cut off or was skipped, and the file says why; 2: none could be run. This file
needs nothing but Python, for it installs the rest.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Sequence
from pathlib import Path

TOTAL = 540.0


def environment(folder: Path, wheels: Sequence[Path]) -> Path:
    """The interpreter of an environment that has these wheels before all that this one has.

    Raises:
        subprocess.CalledProcessError: pip failed, and said why.
    """
    venv.create(folder, system_site_packages=True, clear=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    offline = ["--no-index", "--no-deps", "--no-compile", "--disable-pip-version-check"]
    subprocess.run([*pip, *offline, *map(str, wheels)], check=True)
    # Where this interpreter is an environment's itself, "system" is not that one.
    site = folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    here = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    (site / "outer.pth").write_text("\n".join(sorted(here)) + "\n")
    return python


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("python -m bench.gpu", description=__doc__)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    add = made.add_argument
    add("--device", default="cuda:0", help="cuda:0 or another one; cpu for a dry run")
    add("--demo", action="store_true", help="tiny sizes, in place of so400m's")
    add("--wheels", default="", metavar="FOLDER", help="install these wheels first, for this run")
    add("--only", default="", metavar="STEP[,STEP…]", help="beside the first step, which is needed")
    add("--seconds", type=float, default=TOTAL, help="in all; the steps' times grow and shrink")
    add("--commit", help="where the tree came without its repository")
    add("--out", type=Path, metavar="FOLDER", help="of the result")
    add("--began", type=float, default=time.monotonic(), help=argparse.SUPPRESS)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    words = [*(sys.argv[1:] if arguments is None else arguments)]
    options = parser().parse_args(words)
    if options.wheels:
        folder = Path(options.wheels).absolute()
        try:
            python = environment(folder / "environment", sorted(folder.glob("*.whl")))
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"bench: the wheels were not installed: {error}", file=sys.stderr)
            return 2
        again = ["--began", str(options.began), "--wheels", ""]
        os.execv(python, [str(python), "-m", "bench.gpu", *words, *again])
    from bench.gpu.step import start

    return start(options)


if __name__ == "__main__":
    sys.exit(main())
