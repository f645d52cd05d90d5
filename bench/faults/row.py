"""A row of the fault table, and the findings of playing it.

Counts are judged in both forms. Speed is judged only in the long form: the short one shares the
machine with other work.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.faults.stage import Stage
from bench.faults.traffic import COUNTS, Tally, Traffic

HEAD = """| row | fault | sent | answered | refused (429) | lost | wrong | holds? | note |
|---:|---|---:|---:|---:|---:|---:|---|---|"""


@dataclass(slots=True)
class Finding:
    long: bool
    tally: Tally = field(default_factory=Tally)
    broken: list[str] = field(default_factory=list)  # what should hold and does not
    notes: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not self.broken

    def take(self, tally: Tally) -> None:
        """Add a run's counts; none of its answers may be wrong and no question lost."""
        self.tally.add(tally)
        told = tally.answered + tally.refused + tally.lost
        self.must(tally.sent == told, f"sent {tally.sent} is the sum of the rest, {told}")
        self.must(tally.answered > 0, "something is answered")
        self.must(tally.wrong == 0, f"0 wrong: {dict(tally.reasons)}")
        self.must(tally.lost == 0, f"0 lost: {dict(tally.reasons)}")

    @asynccontextmanager
    async def under(self, traffic: Traffic, clients: int) -> AsyncIterator[None]:
        """Load in the background, whose counts are added when the last answers are there."""
        async with traffic.flowing(clients):
            yield
        self.take(traffic.turn())

    def must(self, held: bool, what: str) -> None:
        if not held:
            self.broken.append(what)

    def timely(self, held: bool, what: str) -> None:
        """The same of speed: only noted in the short form."""
        if self.long:
            self.must(held, what)
        elif not held:
            self.note(f"not judged in the short form: {what}")

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


Play = Callable[[Stage, Finding], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Row:
    number: int
    fault: str
    play: Play

    async def found(self, stage: Stage) -> Finding:
        """Play it. What breaks the play itself is a finding too."""
        finding = Finding(stage.long)
        try:
            await self.play(stage, finding)
        except Exception as error:
            finding.must(False, f"the row could be played: {type(error).__name__}: {error}")
        return finding

    def line(self, finding: Finding) -> str:
        tally = finding.tally
        counts = (tally.sent, tally.answered, tally.refused, tally.lost, tally.wrong)
        note = "; ".join([*(f"NOT: {what}" for what in finding.broken), *finding.notes])
        cells = (self.number, self.fault, *counts, "yes" if finding.holds else "NO", note)
        return "| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |"

    def fields(self, finding: Finding) -> dict[str, Any]:
        tally = finding.tally
        return {
            "row": self.number,
            "fault": self.fault,
            **{name: getattr(tally, name) for name in COUNTS},
            "p50_ms": round(1e3 * tally.quantile(0.5), 2),
            "p99_ms": round(tally.p99_ms, 2),
            "holds": finding.holds,
            "broken": finding.broken,
            "notes": finding.notes,
        }
