"""Rounds of a scenario: each system in turn, and the other way round in every second round.

Only one system is up at a time: idle, stock LitServe burns a tenth of a core and more. A system is
started and stopped anew in each round, so that a lucky start is no advantage for all rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.compare.baselines.catalogue import SYSTEMS
from bench.compare.baselines.system import Ground
from bench.compare.contestant import Contestant, Failed, Server, Towers, Turn
from bench.compare.part import Part
from bench.compare.proof import Proof
from bench.compare.result import Remark, Result
from bench.compare.scenario import BARE, READY, Scenario
from bench.rig.child import Absent, StartError

SEEDS = 1000  # between one turn's items and the next one's


@dataclass(slots=True)
class Contest:
    """A run of one scenario into a result. `say` is told what is under way."""

    scenario: Scenario
    ground: Ground
    result: Result
    say: Callable[[str], object]
    systems: Sequence[str] = ()  # none: all of them

    def run(self, parts: Sequence[Part], rounds: int, proof: Proof | None) -> None:
        """All parts, all rounds; the first round of each begins with the proof."""
        for place, part in enumerate(parts):
            here = [one for one in self.contestants(part) if self._is_here(part, one)]
            for number in range(rounds):
                for one in here if number % 2 == 0 else here[::-1]:
                    seed = SEEDS * (place * rounds + number + 1)
                    turn = Turn(
                        self.scenario.name, part, number, seed, self.ground,
                        self.result.points.append, None if number else proof,
                    )  # fmt: skip
                    self._take(one, turn)

    def contestants(self, part: Part) -> list[Contestant]:
        all_of_them: list[Contestant] = [Server(system) for system in part.systems]
        if part.bare:
            all_of_them += [Towers(BARE, ready=False), Towers(READY, ready=True)]
        return [one for one in all_of_them if not self.systems or one.name in self.systems]

    def _is_here(self, part: Part, contestant: Contestant) -> bool:
        try:
            contestant.look()
        except Absent as reason:
            self._remark(self.result.skipped, part, contestant, f"skipped: {reason}")
            return False
        return True

    def _take(self, contestant: Contestant, turn: Turn) -> None:
        part = turn.part
        self.say(f"{self.scenario.name}, {part.name}, round {turn.round + 1}: {contestant.name}")
        result = self.result
        try:
            finding = contestant.take(turn)
        except Absent as reason:
            self._remark(result.skipped, part, contestant, f"skipped: {reason}")
            return
        except (Failed, StartError, RuntimeError) as reason:
            self._remark(result.failed, part, contestant, f"failed: {reason}")
            return
        for failure in finding.failures:
            self._remark(result.failed, part, contestant, f"failed: {failure}")
        if finding.wrong:  # a baseline may be; the service itself may not
            remarks = result.wrong if contestant.name in SYSTEMS else result.failed
            self._remark(remarks, part, contestant, f"wrong: {finding.wrong}")

    def _remark(
        self, remarks: list[Remark], part: Part, contestant: Contestant, reason: str
    ) -> None:
        remarks.append(Remark(self.scenario.name, part.name, contestant.name, reason))
        self.say(remarks[-1].line())
