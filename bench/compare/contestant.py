"""One system's turn in a round: start, prove, measure, stop. Over HTTP, or the bare towers."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.compare.baselines.catalogue import SYSTEMS
from bench.compare.baselines.system import Ground, Served, System
from bench.compare.point import Point
from bench.compare.proof import NEAR, SAME, NoVectors, Proof
from bench.compare.result import Remark, Result
from bench.compare.scenario import BARE, READY, Part, Scenario
from bench.load.__main__ import Load, parser
from bench.load.generator import FleetError
from bench.load.recording import Recording
from bench.load.summary import Report, Summary
from bench.rig.child import Absent, StartError
from bench.rig.server_process import ROOT, cpu_seconds, family

FILLING = 3.0  # seconds in which the process of a flood starts and fills the system
TIMEOUT = "900"  # seconds; with 500 in flight the last answer is minutes away
SEEDS = 1000  # between one turn's items and the next one's


class Failed(Exception):
    """The generator or the bare towers died; the reason says how."""


@dataclass(slots=True)
class Finding:
    """What a turn brought beside points: wrong vectors, failed levels."""

    wrong: str | None = None
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Turn:
    """What a contestant is to do."""

    scenario: str
    part: Part
    round: int
    seed: int
    ground: Ground
    note: Callable[[Point], None]  # called with each point once it is there
    proof: Proof | None = None

    @property
    def precision(self) -> str:
        """The part's own, or else the ground's."""
        return self.part.precision or self.ground.precision

    def point(self, system: str, items: int, summary: Summary, cpu: float | None = None) -> None:
        point = Point(self.scenario, self.part.name, system, self.round, items, summary, cpu)
        self.note(point)


@dataclass(frozen=True, slots=True)
class Server:
    """A system that is asked over HTTP."""

    system: System

    @property
    def name(self) -> str:
        return self.system.name

    def look(self) -> None:
        """Raises Absent where it cannot run here."""
        self.system.look()

    def take(self, turn: Turn) -> Finding:
        """Look at the vectors where the turn has a proof, then measure all levels.

        Raises:
            Absent, StartError: it is not there.
            Failed: it could not be measured to the end.
        """
        finding = Finding()
        with self.system.start(turn.ground) as served, tempfile.TemporaryDirectory() as home:
            try:
                if turn.proof:
                    least = SAME if turn.precision == "float32" else NEAR
                    finding.wrong = turn.proof.fault(served, turn.part.kind, least)
            except NoVectors as reason:
                return Finding(wrong=str(reason))  # there is nothing to time
            for place, arguments in enumerate(_loads(turn.part)):
                more = ["--seed", str(turn.seed + place)]
                more += ["--any-length"] if finding.wrong else []
                path = Path(home) / f"{place}.jsonl"
                if turn.part.flood:
                    report = self._beside(turn, served, [*arguments, *more], path)
                else:
                    report = self._load(turn, served, [*arguments, *more], path)
                finding.failures += report.failures
        return finding

    def _beside(self, turn: Turn, served: Served, arguments: list[str], path: Path) -> Report:
        """The same beside a flood, which has a point too."""
        other = path.with_suffix(".flood")
        with _flooded(turn, served, other):
            report = self._load(turn, served, arguments, path)
        (summary,) = Report.of(Recording.read(other)).summaries
        turn.point(f"{self.name}, its flood", turn.part.flood_items, summary)
        return report

    def _load(self, turn: Turn, served: Served, arguments: list[str], path: Path) -> Report:
        whole = [*_address(served), *arguments, "--batch", str(turn.part.items)]
        whole += ["--target", turn.part.kind, "--timeout", TIMEOUT, "--quiet"]
        used = _cpu(served)
        try:
            if Load(parser().parse_args(whole)).record(path):
                raise KeyboardInterrupt
        except FleetError as error:
            raise Failed(str(error)) from None
        recording = Recording.read(path)
        used = _cpu(served) - used
        report = Report.of(recording)
        asked = [one.items for stage in recording.stages for one in stage.samples if one.good]
        for summary in report.summaries:
            each = None if turn.part.flood else used * 1e3 / max(1, sum(asked))  # else not its own
            turn.point(self.name, turn.part.items, summary, each)
        return report


@dataclass(frozen=True, slots=True)
class Towers:
    """The towers without a server: `ready` times the forward passes alone."""

    name: str
    ready: bool

    def look(self) -> None:
        """They are always there."""

    def take(self, turn: Turn) -> Finding:
        """Measure all sizes of batch.

        Raises:
            Failed: their process did.
        """
        part = turn.part
        module = "bench.compare.baselines.bare"
        command = [sys.executable, "-m", module, str(turn.ground.checkpoint)]
        command += ["--kind", part.kind, "--batches", ",".join(map(str, part.bare))]
        command += ["--seconds", str(part.bare_seconds), "--threads", str(turn.ground.threads())]
        command += ["--precision", turn.precision, "--device", turn.ground.device]
        command += ["--seed", str(turn.seed), *(["--ready"] if self.ready else [])]
        with tempfile.TemporaryDirectory() as home:
            path = Path(home) / "bare.jsonl"
            done = subprocess.run(
                [*command, "--out", str(path)], cwd=ROOT, capture_output=True, text=True
            )
            if done.returncode:
                raise Failed(f"the bare towers: {done.stderr.strip().splitlines()[-1:]}")
            stages = Recording.read(path).measured
        for batch, stage in zip(part.bare, stages, strict=True):
            summary = replace(Summary.of(stage), level=f"batch {batch}")
            turn.point(self.name, batch, summary)
        return Finding()


Contestant = Server | Towers


def _address(served: Served) -> list[str]:
    options = {
        "--url": served.url,
        "--route": served.form,
        "--text-path": served.text_path,
        "--image-path": served.image_path,
        "--model": served.model,
    }
    return [word for name, value in options.items() if value for word in (name, value)]


@contextmanager
def _flooded(turn: Turn, served: Served, path: Path) -> Iterator[None]:
    """Clients with larger requests, from a process of their own; they end with the load or soon."""
    part, level = turn.part, ["--concurrency", str(turn.part.flood)]
    command = [sys.executable, "-m", "bench.load", *_address(served), "--target", part.kind, *level]
    command += ["--batch", str(part.flood_items), "--header", "X-Priority: bulk"]
    command += ["--timeout", TIMEOUT, "--warmup", "0", "--quiet"]
    command += ["--seed", str(turn.seed + len(part.rates))]
    once = [*command, "--requests", "1"]  # a server may start workers for bulk when it comes
    subprocess.run(once, cwd=ROOT, stdout=subprocess.DEVNULL)
    command += ["--duration", str(part.seconds + FILLING), "--out", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        try:
            time.sleep(FILLING)
            yield
        except BaseException:
            process.terminate()
            raise


def _loads(part: Part) -> Iterator[list[str]]:
    """Arguments of the runs of `bench.load`: one for each closed level, one for all rates."""
    bounds = ["--duration", str(part.seconds)] if part.seconds else []
    if part.repeat:
        bounds += ["--repeat", str(part.repeat), "--universe", str(part.universe)]
    warmup = part.warmup
    if part.rates:
        rates = ",".join(f"{rate:g}" for rate in part.rates)
        yield [*bounds, "--warmup", str(warmup), "--rate", rates]
    for level in part.levels:
        requests = part.level_requests(level)
        many = ["--requests", str(requests)] if requests else []
        yield [*bounds, *many, "--warmup", str(warmup), "--concurrency", str(level)]
        warmup = 0  # it is warm


def _cpu(served: Served) -> float:
    """CPU seconds that the processes of a system have used, all that are alive."""
    total = 0.0
    for process in (one for root in served.pids for one in family(root)):
        with suppress(ProcessLookupError):
            total += cpu_seconds(process)
    return total


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
