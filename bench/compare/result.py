"""The points and remarks of a run, as a file holds them; judged anew each time it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Self

import orjson

from bench.compare.point import Point, Points, throughput
from bench.compare.scenario import BARE, READY, SCENARIOS
from bench.load.summary import NOTHING
from bench.rig.command import Spread, Target, markdown

REMARKS = ("wrong", "skipped", "failed")
COLUMNS = (
    "system", "level", "items each", "items/s", "least", "most", "p50 ms", "p95 ms", "p99 ms",
    "errors %", "429 %", "hits %", "CPU ms/item", "vectors",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Remark:
    """Why a system is out of the ratios of a part, or was not measured, or failed."""

    scenario: str
    part: str
    system: str
    reason: str

    def line(self) -> str:
        return f"{self.scenario}, {self.part}, {self.system}: {self.reason}"


@dataclass(slots=True)
class Result:
    """A run. `failed` ones make it fail; `wrong` ones are shown; `skipped` ones are not there."""

    options: dict[str, Any]
    points: list[Point] = field(default_factory=list)
    wrong: list[Remark] = field(default_factory=list)
    skipped: list[Remark] = field(default_factory=list)
    failed: list[Remark] = field(default_factory=list)
    head: dict[str, Any] = field(default_factory=dict)  # date, machine

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a file.

        Raises:
            ValueError: it is not one of a comparison.
        """
        try:
            fields = orjson.loads(path.read_bytes())
            remarks = {name: [Remark(**one) for one in fields[name]] for name in REMARKS}
            points = [Point.of(one) for one in fields["points"]]
            head = {name: fields[name] for name in ("date", "machine")}
            return cls(fields["options"], points, **remarks, head=head)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path.name} holds no comparison") from error

    def fields(self) -> dict[str, Any]:
        """As JSON holds it, with its targets."""
        targets, unjudged = self.judged()
        return {
            "options": self.options,
            "targets": [target.fields() for target in targets],
            "unjudged": unjudged,
            **{name: [asdict(one) for one in getattr(self, name)] for name in REMARKS},
            "points": [asdict(one) for one in self.points],
        }

    def judged(self) -> tuple[list[Target], list[str]]:
        targets: list[Target] = []
        unjudged: list[str] = []
        for name in self.scenarios():
            found, reasons = SCENARIOS[name].judged(self.of(name))
            targets += found
            unjudged += reasons
        return targets, unjudged

    def scenarios(self) -> list[str]:
        """Those that have points, in the order they were run."""
        return list(dict.fromkeys(one.scenario for one in self.points))

    def of(self, scenario: str) -> Points:
        wrong = [(one.part, one.system) for one in self.wrong if one.scenario == scenario]
        return Points((one for one in self.points if one.scenario == scenario), wrong)

    @property
    def code(self) -> int:
        """0: all targets met; 1: one missed, or not to be judged; 2: a point failed.

        What was asked for in part need not show every target.
        """
        if self.failed:
            return 2
        targets, unjudged = self.judged()
        part = any(self.options.get(name) for name in ("systems", "levels", "rates"))
        met = all(target.met for target in targets)
        return int(not met or bool(unjudged and not part))


def report(result: Result) -> str:
    return "\n".join([*_head(result), *_tables(result), *_remarks(result), *_targets(result)])


def _head(result: Result) -> Iterator[str]:
    machine = result.head.get("machine", {})
    yield "# siglit beside what it would replace"
    yield ""
    if machine:
        dirty = ", with changes" if machine["dirty"] else ""
        yield f"{result.head['date']} · {machine['cores']} cores, {machine['cpu']}"
        yield f"· commit {str(machine['commit'])[:12]}{dirty}"
    told = " ".join(f"{name}={value}" for name, value in result.options.items() if value)
    yield f"· {told}"
    yield ""
    yield "Medians of the rounds; least and most are the rounds' extremes of items/s."


def _tables(result: Result) -> Iterator[str]:
    for scenario in result.scenarios():
        points = result.of(scenario)
        for part in dict.fromkeys(one.part for one in points):
            rows = [
                _row(points.some(part, system, level), _vectors(points, part, system))
                for system in points.systems(part)
                for level in points.levels(part, system)
            ]
            yield from ("", f"## {scenario}: {part}", "", markdown([list(COLUMNS), *rows]))


def _vectors(points: Points, part: str, system: str) -> str:
    """What the proof said; the bare towers are asked nothing."""
    if system in (BARE, READY):
        return NOTHING
    return "WRONG" if points.is_wrong(part, system) else "right"


def _row(points: list[Point], vectors: str) -> list[str]:
    first, rate = points[0], Spread.of([throughput(one) for one in points])

    def middle(figure: Callable[[Point], Any], form: str = ".1f") -> str:
        values = [value for one in points if (value := figure(one)) is not None]
        return f"{median(values):{form}}" if values else NOTHING

    def percentile(name: str) -> str:
        return middle(lambda one: (one.summary.latency_ms or {}).get(name))

    return [
        first.system,
        first.level,
        str(first.items),
        *rate.cells(),
        *(percentile(name) for name in ("p50", "p95", "p99")),
        middle(lambda one: one.summary.errors_pct, ".2f"),
        middle(lambda one: one.summary.busy_pct, ".2f"),
        middle(lambda one: one.summary.hits_pct),
        middle(lambda one: one.cpu_ms, ".2f"),
        vectors,
    ]


def _remarks(result: Result) -> Iterator[str]:
    lines = [one.line() for one in (*result.failed, *result.wrong, *result.skipped)]
    lines += [
        f"{one.scenario}, {one.part}, {one.system} at {one.level}: the generator was near its limit"
        for one in result.points
        if one.summary.bound
    ]
    if lines:
        yield ""
    yield from (f"- {line}" for line in dict.fromkeys(lines))


def _targets(result: Result) -> Iterator[str]:
    targets, unjudged = result.judged()
    if not targets and not unjudged:
        return
    yield from ("", "## Targets", "", "```")
    yield from (target.line() for target in targets)
    yield from (f"not judged  {reason}" for reason in unjudged)
    yield "```"
