"""The points and remarks of a run, as a file holds them; judged anew each time it is read."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import orjson

from bench.compare.point import Point, Points
from bench.compare.scenario import SCENARIOS
from bench.rig.rounds import Target

REMARKS = ("wrong", "skipped", "failed")


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
            "points": [one.fields() for one in self.points],
        }

    def judged(self) -> tuple[list[Target], list[str]]:
        """All targets, and why others could not be judged."""
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
