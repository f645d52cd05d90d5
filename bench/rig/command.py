"""What the measurements' commands share: options, figures of rounds, and the table with targets.

Systems take turns, round after round: A B C, A B C, … Whatever slows the machine for a while slows
neighbours in a round alike. So two systems are compared within each round, and the median of those
ratios is the result; the extremes stand beside it.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, ParamSpec, TypeVar

from tqdm import tqdm

from bench.rig.result_file import RESULTS, save

T = TypeVar("T")
P = ParamSpec("P")
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


def failing(*kinds: type[Exception]) -> Callable[[Callable[P, int]], Callable[P, int]]:
    """Ends a command with exit code 2 and a sentence where an error of these kinds is raised."""

    def ending(main: Callable[P, int]) -> Callable[P, int]:
        @functools.wraps(main)
        def ended(*arguments: P.args, **named: P.kwargs) -> int:
            try:
                return main(*arguments, **named)
            except kinds as error:
                print(f"bench: {error}", file=sys.stderr)
                return 2

        return ended

    return ending


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


def per_second(
    run: Callable[[], object], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Runs in a second, over as many as fill `seconds`, at least one."""
    done, start = 0, clock()
    while (elapsed := clock() - start) < seconds or not done:
        run()
        done += 1
    return done / elapsed


def in_turn(systems: Iterable[T], rounds: int, what: str) -> Iterator[tuple[int, T]]:
    """The systems in turn, with the number of the round, while a bar shows the progress."""
    turns = list(itertools.product(range(rounds), systems))
    yield from tqdm(turns, desc=what, unit="slice", leave=False, disable=None)


class Figures(defaultdict[str, list[float]]):
    """What is measured → a value of each round."""

    def cells(self, name: str, form: str = ".1f") -> list[str]:
        return Spread.of(self[name]).cells(form)

    def fields(self) -> dict[str, Any]:
        return {name: Spread.of(values).fields() for name, values in self.items()}

    def ratio(self, one: str, to: str) -> float:
        return ratio(self[one], self[to])


def tabled(figures: Figures, form: str, what: str = "") -> tuple[list[list[str]], dict[str, Any]]:
    """A row for each figure, and the same as JSON holds it."""
    rows = [[what, "median", "least", "most"]]
    rows += [[name, *figures.cells(name, form)] for name in figures]
    return rows, {"figures": figures.fields()}


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


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure that was measured once in each round."""

    rounds: list[float]
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls([round(v, 3) for v in values], median(values), min(values), max(values))

    def cells(self, form: str = ".1f") -> list[str]:
        """Median, least and most, for a table."""
        return [f"{value:{form}}" for value in (self.median, self.low, self.high)]

    def fields(self) -> dict[str, Any]:
        return {k: v if k == "rounds" else round(v, 3) for k, v in asdict(self).items()}


def ratio(values: Sequence[float], to: Sequence[float]) -> float:
    """The median of the ratios within the rounds."""
    return median(one / other for one, other in zip(values, to, strict=True))


@dataclass(frozen=True, slots=True)
class Target:
    """A ratio, and what it was meant to be."""

    name: str
    ratio: float
    at_most: float | None = None
    at_least: float | None = None

    @property
    def met(self) -> bool:
        below = self.at_most is None or self.ratio <= self.at_most
        return below and (self.at_least is None or self.ratio >= self.at_least)

    def line(self) -> str:
        limit = f"≤ {self.at_most:g}" if self.at_most is not None else f"≥ {self.at_least:g}"
        return f"{'met   ' if self.met else 'MISSED'}  {self.name}: {self.ratio:.2f} ({limit})"

    def fields(self) -> dict[str, Any]:
        limits = {"at_most": self.at_most, "at_least": self.at_least}
        given = {name: limit for name, limit in limits.items() if limit is not None}
        return {"name": self.name, "ratio": round(self.ratio, 3), **given, "met": self.met}


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the head; all cells lean right."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
