"""One system's turn in a round: start, prove, measure, stop. Over HTTP, or the bare towers."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from bench.compare.baselines.bare import summaries
from bench.compare.baselines.catalogue import SYSTEMS
from bench.compare.baselines.system import Ground, Served, System, always
from bench.compare.point import Point
from bench.compare.proof import NEAR, SAME, NoVectors, Proof
from bench.compare.result import Remark, Result
from bench.compare.scenario import BARE, READY, Part, Scenario
from bench.load.__main__ import Load, parser
from bench.load.generator import FleetError
from bench.load.recording import Recording
from bench.load.summary import Report, Summary
from bench.rig.child import Absent
from bench.rig.server_process import ROOT, cpu_seconds, family

FILLING = 3.0  # seconds in which the process of a flood starts and fills the system
TIMEOUT = "900"  # seconds; with 500 in flight the last answer is minutes away
SEEDS = 1000  # between one turn's items and the next one's


class Failed(RuntimeError):
    """The generator or the bare towers died; the reason says how."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a contestant is to do; `note` and `fail` are called as soon as there is something."""

    scenario: str
    part: Part
    round: int
    seed: int
    ground: Ground
    note: Callable[[Point], None]
    fail: Callable[[str], None]  # a level that failed, and why
    proof: Proof | None = None

    @property
    def precision(self) -> str:
        return self.part.precision or self.ground.precision

    def point(self, system: str, items: int, summary: Summary, cpu: float | None = None) -> None:
        self.note(Point(self.scenario, self.part.name, system, self.round, items, summary, cpu))


@dataclass(frozen=True, slots=True)
class Contestant:
    """`take` measures a turn and says what is wrong with the vectors, if anything.

    It raises Absent or StartError where the contestant is not there, Failed where it could not be
    measured to the end. `look` raises Absent where it cannot run here at all.
    """

    name: str
    take: Callable[[Turn], str | None]
    look: Callable[[], object]


def over_http(system: System) -> Contestant:
    return Contestant(system.name, partial(_asked, system), system.look)


def towers(name: str) -> Contestant:
    """Without a server: BARE, or READY, which times the forward passes alone."""
    return Contestant(name, partial(_computed, name), always)


def _asked(system: System, turn: Turn) -> str | None:
    """Look at the vectors where the turn has a proof, then measure all levels."""
    wrong = None
    with system.start(turn.ground) as served, tempfile.TemporaryDirectory() as home:
        try:
            if turn.proof:
                least = SAME if turn.precision == "float32" else NEAR
                wrong = turn.proof.fault(served, turn.part.kind, least)
        except NoVectors as reason:
            return str(reason)  # there is nothing to time
        load = _beside if turn.part.flood else _load
        for place, arguments in enumerate(_loads(turn.part)):
            whole = [*arguments, *_words(seed=turn.seed + place)]
            whole += ["--any-length"] if wrong else []
            load(system.name, turn, served, whole, Path(home) / f"{place}.jsonl")
    return wrong


def _beside(name: str, turn: Turn, served: Served, arguments: list[str], path: Path) -> None:
    """The same beside clients with larger requests, from a process that has a point too."""
    part, other = turn.part, path.with_suffix(".flood")
    command = [sys.executable, "-m", "bench.load", *_asking(served, part, part.flood_items)]
    command += _words(concurrency=part.flood, header="X-Priority: bulk", warmup=0)
    command += _words(seed=turn.seed + len(part.rates))
    once = [*command, "--requests", "1"]  # a server may start workers for bulk when it comes
    subprocess.run(once, cwd=ROOT, stdout=subprocess.DEVNULL)
    command += _words(duration=part.seconds + FILLING, out=other)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        try:
            time.sleep(FILLING)
            _load(name, turn, served, arguments, path)
        except BaseException:
            process.terminate()
            raise
    (summary,) = Report.of(Recording.read(other)).summaries
    turn.point(f"{name}, its flood", part.flood_items, summary)


def _load(name: str, turn: Turn, served: Served, arguments: list[str], path: Path) -> None:
    whole = [*_asking(served, turn.part, turn.part.items), *arguments]
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
        turn.point(name, turn.part.items, summary, each)
    for failure in report.failures:
        turn.fail(failure)


def _computed(name: str, turn: Turn) -> None:
    """All sizes of batch, in a process of their own."""
    part = turn.part
    what = (part.kind, turn.ground, turn.precision, part.bare, part.bare_seconds, turn.seed)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            found = pool.submit(summaries, *what, name == READY).result()
        except Exception as error:
            raise Failed(f"the bare towers: {error}") from None
        except BaseException:  # cut off: nobody waits for the rest of it
            for child in multiprocessing.active_children():
                child.kill()
            raise
    for batch, summary in zip(part.bare, found, strict=True):
        turn.point(name, batch, summary)


def _words(**options: object) -> list[str]:
    """As a command line has them; None is left out."""
    given = {name: value for name, value in options.items() if value is not None}
    pairs = ((f"--{name.replace('_', '-')}", str(value)) for name, value in given.items())
    return [word for pair in pairs for word in pair]


def _asking(served: Served, part: Part, items: int) -> list[str]:
    """Options of `bench.load`: who is asked, and for how many items at once."""
    fields = {**asdict(served), "route": served.form, "target": part.kind, "batch": items}
    hidden = ("pids", "form")
    named = {name: value for name, value in fields.items() if name not in hidden}
    return [*_words(timeout=TIMEOUT, **named), "--quiet"]


def _loads(part: Part) -> Iterator[list[str]]:
    """Arguments of the runs of `bench.load`: one for each closed level, one for all rates."""
    bounds = _words(duration=part.seconds or None)
    if part.repeat:
        bounds += _words(repeat=part.repeat, universe=part.universe)
    if part.rates:
        rates = ",".join(f"{rate:g}" for rate in part.rates)
        yield [*bounds, *_words(warmup=part.warmup, rate=rates)]
    for place, level in enumerate(part.levels):
        warmup = 0 if place else part.warmup  # then it is warm
        requests = part.level_requests(level) or None
        yield [*bounds, *_words(requests=requests, warmup=warmup, concurrency=level)]


def _cpu(served: Served) -> float:
    """CPU seconds that the processes of a system have used, all that are alive."""
    total = 0.0
    for process in (one for root in served.pids for one in family(root)):
        with suppress(ProcessLookupError):
            total += cpu_seconds(process)
    return total


@dataclass(slots=True)
class Contest:
    """Rounds of a scenario into a result: each system in turn, in every second round backwards.

    Only one system is up at a time: idle, stock LitServe burns a tenth of a core and more. A system
    is started and stopped anew in each round, so that a lucky start is no advantage for all rounds.
    `say` is told what is under way.
    """

    scenario: Scenario
    ground: Ground
    result: Result
    say: Callable[[str], object]
    systems: Sequence[str] = ()  # none: all of them

    def run(self, parts: Sequence[Part], rounds: int, proof: Proof | None) -> None:
        """All parts, all rounds; the first round of each begins with the proof."""
        for place, part in enumerate(parts):
            everybody = [*map(over_http, part.systems)]
            everybody += map(towers, (BARE, READY) if part.bare else ())
            asked = [one for one in everybody if one.name in (self.systems or [one.name])]
            here = [one for one in asked if self._is_here(part, one)]
            for number in range(rounds):
                for one in here if number % 2 == 0 else here[::-1]:
                    seed = SEEDS * (place * rounds + number + 1)
                    self._take(one, part, number, seed, None if number else proof)

    def _is_here(self, part: Part, one: Contestant) -> bool:
        try:
            one.look()
        except Absent as reason:
            self._remark(self.result.skipped, part, one, f"skipped: {reason}")
            return False
        return True

    def _take(
        self, one: Contestant, part: Part, number: int, seed: int, proof: Proof | None
    ) -> None:
        self.say(f"{self.scenario.name}, {part.name}, round {number + 1}: {one.name}")
        result = self.result

        def fail(reason: object) -> None:
            self._remark(result.failed, part, one, f"failed: {reason}")

        what = (self.scenario.name, part, number, seed, self.ground)
        try:
            wrong = one.take(Turn(*what, result.points.append, fail, proof))
        except Absent as reason:
            self._remark(result.skipped, part, one, f"skipped: {reason}")
        except RuntimeError as reason:
            fail(reason)
        else:
            if wrong:  # a baseline may be; the service itself may not
                remarks = result.wrong if one.name in SYSTEMS else result.failed
                self._remark(remarks, part, one, f"wrong: {wrong}")

    def _remark(self, remarks: list[Remark], part: Part, one: Contestant, reason: str) -> None:
        remarks.append(Remark(self.scenario.name, part.name, one.name, reason))
        self.say(remarks[-1].line())
