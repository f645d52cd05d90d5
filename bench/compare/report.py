"""A result as Markdown: a table for each part, what was left out and why, the targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from bench.compare.point import Point, Points, throughput
from bench.compare.result import Result
from bench.compare.scenario import BARE, READY
from bench.load.summary import NOTHING
from bench.rig.rounds import Spread
from bench.rig.table import markdown

COLUMNS = (
    "system", "level", "items each", "items/s", "least", "most", "p50 ms", "p95 ms", "p99 ms",
    "errors %", "429 %", "hits %", "CPU ms/item", "vectors",
)  # fmt: skip


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
        for part in parts(points):
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


def parts(points: Points) -> list[str]:
    return list(dict.fromkeys(one.part for one in points))
