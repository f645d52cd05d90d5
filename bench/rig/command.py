"""What the measurements' commands share: options, and the table with targets at the end."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.rig.result_file import RESULTS, save
from bench.rig.rounds import Target
from bench.rig.table import markdown


def described(module: str, document: str | None) -> argparse.ArgumentParser:
    """A command line whose help is the module's docstring as it stands."""
    parser = argparse.ArgumentParser(f"python -m {module}", description=document)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def measuring(
    module: str, document: str | None, rounds: int, seconds: float, of: str = "of one slice"
) -> argparse.ArgumentParser:
    """The same with `--rounds`, `--seconds` and `--out`."""
    parser = described(module, document)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seconds", type=float, default=seconds, help=of)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    return parser


def concluded(
    name: str,
    options: argparse.Namespace,
    rows: Sequence[Sequence[str]],
    targets: Sequence[Target],
    fields: Mapping[str, Any],
    measured_on: str | None = None,
) -> int:
    """Print the table and the targets, keep both; 0 where all targets are met, else 1."""
    print(markdown(rows), "", *(target.line() for target in targets), sep="\n")
    whole = {"rounds": options.rounds, "seconds": options.seconds, **fields}
    whole["targets"] = [target.fields() for target in targets]
    save(name, whole, options.out, measured_on)
    return 0 if all(target.met for target in targets) else 1
