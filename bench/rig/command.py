"""What the measurements' commands share: options, and the table with targets at the end."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bench.rig.result_file import RESULTS, save
from bench.rig.rounds import Target
from bench.rig.table import markdown

T = TypeVar("T")
N = TypeVar("N", int, float)


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


def listed(one: Callable[[str], T]) -> Callable[[str], list[T]]:
    """The type of an option that takes several, with commas between them."""

    def many(text: str) -> list[T]:
        return [one(part) for part in text.split(",")]

    return many


def positive(one: Callable[[str], N]) -> Callable[[str], N]:
    """The type of an option whose value lies above 0, and is no infinity."""

    def number(text: str) -> N:
        value = one(text)
        if not 0 < value < float("inf"):
            raise ValueError
        return value

    return number


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
