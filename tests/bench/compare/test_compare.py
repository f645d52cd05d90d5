"""The comparison: judged by made points, and run in small on real systems."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from bench.compare.__main__ import main
from bench.compare.baselines.system import Ground, Served, System
from bench.compare.contestant import Contest
from bench.compare.point import Point, Points
from bench.compare.proof import Proof
from bench.compare.result import Remark, Result, report
from bench.compare.scenario import SCENARIOS, Part, Scenario, loses_nobody
from bench.faults.vitals import births, survivors
from bench.load.summary import Summary
from bench.rig.child import Absent, StartError
from bench.rig.random_checkpoint import DEMO
from bench.rig.server_process import ROOT
from tests.support.echo_server import Behaviour, EchoServer
from tests.support.patience import awaited
from tests.support.recordings import sample, stage

BASELINE = "litserve"
FLOODED = "siglit, its flood"


def point(
    system: str,
    rate: float,
    p99: float = 100.0,
    level: str = "50",
    part: str = "text",
    scenario: str = "base-text",
    number: int = 0,
    **fields: Any,
) -> Point:
    """So many items a second."""
    summary = replace(
        Summary.of(stage(sample())),
        level=level,
        concurrency=int(level) if level.isdecimal() else 0,
        items_per_s=rate,
        latency_ms={"mean": 9.0, "p50": p99 / 2, "p95": p99 * 0.9, "p99": p99, "max": p99},
        **fields,
    )
    return Point(scenario, part, system, number, 1, summary, cpu_ms=1e3 / rate)


def verdicts(points: Sequence[Point], wrong: Sequence[tuple[str, str]] = ()) -> dict[str, bool]:
    """Target → met, of a scenario's points."""
    targets, _ = SCENARIOS[points[0].scenario].judged(Points(points, wrong))
    return {target.name: target.met for target in targets}


def test_siglit_is_held_against_the_best_baseline_at_each_level() -> None:
    """The best in throughput and the best in p99 may be two systems."""
    points = [
        *(point("siglit", 10, p99=80), point("flask-dev", 9, p99=90)),
        point(BASELINE, 8, p99=70),
    ]
    found = verdicts(points)
    assert found["text at 50: items/s ÷ best baseline (flask-dev)"]
    assert not found["text at 50: p99 ÷ best baseline (litserve)"]


def test_a_baseline_with_wrong_vectors_or_errors_counts_for_nothing() -> None:
    """Being wrong is cheap, nor is losing requests a way to win."""
    points = [point("siglit", 10), point(BASELINE, 8, p99=110)]
    quick = [*points, point("infinity", 50, p99=1)]
    assert not all(verdicts(quick).values())
    assert all(verdicts(quick, wrong=[("text", "infinity")]).values())
    lossy = point("flask-dev", 50, p99=1, errors_pct=2.0, errors={"closed": 1})
    assert all(verdicts([*points, lossy]).values())


def test_ratios_are_of_rounds_and_their_median_is_judged() -> None:
    """A slow round slows neighbours alike."""
    rates = {"siglit": (10, 5, 2), BASELINE: (9, 4, 3)}
    points = [
        point(name, rate, number=number)
        for name, rounds in rates.items()
        for number, rate in enumerate(rounds)
    ]
    targets, _ = SCENARIOS["base-text"].judged(Points(points))
    assert targets[0].ratio == pytest.approx(10 / 9)


def test_a_target_that_lacks_a_figure_is_named_not_met() -> None:
    """Neither met nor missed, and the others are judged all the same."""
    one_round = [point("siglit", 10), point(BASELINE, 8)]
    targets, unjudged = SCENARIOS["base-text"].judged(Points(one_round))
    assert len(targets) == 3  # two of the level, and nobody lost
    assert unjudged == ["base-text: siglit was not measured in text, 32 items"]
    second = [*one_round, point("siglit", 10, number=1)]
    assert "no right baseline" in SCENARIOS["base-text"].judged(Points(second))[1][0]


def made(scenario: str, part: str, *systems: tuple[Any, ...], **fields: Any) -> list[Point]:
    """Points of one part: (name, items a second, level, p99, more)."""
    return [
        point(name, rate, p99, level, part, scenario, **{**fields, **more})
        for name, rate, level, p99, more in ((*one, {})[:5] for one in systems)
    ]


BARE = (("bare", 90, "batch 8", 9), ("bare", 100, "batch 64", 9), ("bare-ready", 999, "batch 8", 9))
CROWD = ("crowd", "text, 500 clients")
SCALE = ("scale-out", "text, hits")
ONE = ("1-instance", 10, "64", 9)
CALM, FLOOD = ("classes", "text, no flood"), ("classes", "text, flood")
SINGLE = ("siglit", 2, "2/s", 10)
THREADS, SINGLE_THREADS = ("gunicorn-threads", 2, "2/s", 90), ("gunicorn-threads", 2, "2/s", 13)


@pytest.mark.parametrize(
    ("points", "met"),
    [
        # the ceiling is the best batch of those that decode too
        (made("demo-batch", "text, 64 items", ("siglit", 60, "4", 9), *BARE), True),
        (made("demo-batch", "text, 64 items", ("siglit", 59, "4", 9), *BARE), False),
        # what the service adds is a difference of medians in ms; a made p50 is half of its p99
        (made("latency", "text", ("siglit", 1, "1", 5.0), ("bare", 1, "batch 1", 2)), True),
        (made("latency", "text", ("siglit", 1, "1", 5.2), ("bare", 1, "batch 1", 2)), False),
        # a crowd may be told to come later but not be lost
        (made(*CROWD, ("siglit", 1, "500", 9), busy_pct=90.0), True),
        (made(*CROWD, ("siglit", 1, "500", 9), errors_pct=0.1), False),
        # a flood may cost single texts half as much again, and others more
        (made(*CALM, SINGLE) + made(*FLOOD, ("siglit", 2, "2/s", 15), THREADS), True),
        (made(*CALM, SINGLE) + made(*FLOOD, ("siglit", 2, "2/s", 16), THREADS), False),
        (made(*CALM, SINGLE) + made(*FLOOD, ("siglit", 2, "2/s", 14), SINGLE_THREADS), False),
        # instances share where one serves from Redis what the other computed
        (made(*SCALE, ONE, ("2-instances", 9, "64", 9, {"cache": {"hit-l2": 5}})), True),
        (made(*SCALE, ONE, ("2-instances", 9, "64", 9, {"cache": {"hit-l1": 5}})), False),
    ],
)
def test_each_kind_of_target_is_met_or_missed(points: list[Point], met: bool) -> None:
    """Just within its limit, and just beyond."""
    assert all(verdicts(points).values()) is met


def test_options_change_sweeps_and_bounds() -> None:
    """A level that is the point of a part stays; each client gets at least one answer."""
    sweep = Part("a", "text", levels=(50, 500), requests=100)
    changed = sweep.changed(levels=[4, 8], requests=6)
    assert changed.levels == (4, 8)
    assert [changed.level_requests(level) for level in changed.levels] == [6, 8]
    large = Part("c", "text", levels=(2,), items=32, requests=12).changed(requests=100)
    assert large.requests == 4  # of 32 items: a run of base size is not 32 times as long for them
    alone = Part("b", "text", levels=(1,), seconds=60).changed(levels=[4, 8], seconds=2)
    assert (alone.levels, alone.seconds, alone.level_requests(1)) == ((1,), 2, 0)


def result(folder: Path) -> Path:
    """A made result file: two rounds, a wrong system, a skipped one."""
    figures = (("siglit", 10.0, 9.0), (BASELINE, 8.0, 8.0), ("infinity", 20.0, 1.0))
    points = [
        point(name, rate * (number + 1), p99, level=level, number=number)
        for number in (0, 1)
        for level in ("50", "200")
        for name, rate, p99 in figures
    ]
    made = Result(
        {"rounds": 2},
        points,
        wrong=[Remark("base-text", "text", "infinity", "wrong: cosine 0.33")],
        skipped=[Remark("base-text", "text", "vllm", "skipped: CUDA")],
    )
    machine = {"cores": 2, "cpu": "a CPU", "commit": "0123456789abcdef", "dirty": False}
    path = folder / "compare-cpu.json"
    path.write_bytes(orjson.dumps({"date": "2026-01-02", "machine": machine, **made.fields()}))
    return path


def test_a_report_is_remade_from_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Table, remarks and targets, the same to stdout and beside the file; missed: exit code 1."""
    path = result(tmp_path)
    assert main(["--report", str(path)]) == 1
    text = capsys.readouterr().out
    assert (tmp_path / "compare-cpu.md").read_text() == text
    rows = [line.split("|") for line in text.splitlines() if "infinity |" in line]
    assert [row[-2].strip() for row in rows] == ["WRONG", "WRONG"]
    assert rows[0][4].strip() == "30.0"  # the median of 20 and 40
    assert "- base-text, text, vllm: skipped: CUDA" in text
    assert "commit 0123456789ab" in text
    assert "met     text at 50: items/s ÷ best baseline (litserve): 1.25 (≥ 1)" in text
    assert "MISSED  text at 50: p99 ÷ best baseline (litserve): 1.12 (≤ 1)" in text
    assert "not judged  base-text: siglit was not measured in text, 32 items" in text


def test_what_is_no_result_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With exit code 2 and the file's name."""
    path = tmp_path / "other.json"
    path.write_text('{"date": "2026-01-02"}')
    assert main(["--report", str(path)]) == 2
    assert "other.json holds no comparison" in capsys.readouterr().err


def stand(url: str = "", reason: Exception | None = None, name: str = "siglit") -> System:
    """A system that stands still: a small server that is up already, or a reason why not."""

    @contextmanager
    def start(_: Ground) -> Iterator[Served]:
        if reason:
            raise reason
        yield Served(url, (), form="v1")

    return System(name, start)


def contest(system: System, rounds: int = 1, proof: Proof | None = None) -> Result:
    """What a short run of it gives."""
    part = Part("text", "text", (system,), levels=(2, 4), requests=8, warmup=2)
    scenario = Scenario("crowd", "demo", (part,), (partial(loses_nobody, "siglit", "text"),))
    made = Result({"levels": [2, 4]})
    turns = Contest(scenario, Ground(DEMO, 1), made, lambda _: None)
    turns.run([part], rounds, proof)
    return made


def test_a_run_has_a_point_for_each_level_and_round() -> None:
    """All distinct items."""
    with EchoServer() as server:
        found = contest(stand(server.url), rounds=2)
    taken = [(one.round, one.level) for one in found.points]
    assert taken == [(0, "2"), (0, "4"), (1, "2"), (1, "4")]
    assert all(one.summary.good == 8 for one in found.points)
    assert len(set(server.items)) == len(server.items)
    assert found.code == 0


def test_a_flood_beside_a_load_is_in_bulk_and_has_a_point() -> None:
    """Single items at a rate, and larger requests from another process at the same time."""
    with EchoServer() as server:
        system = stand(server.url)
        part = Part("text", "text", (system,), rates=(20,), seconds=1, flood=2, flood_items=4)
        made = Result({})
        scenario = Scenario("classes", "demo", (part,))
        Contest(scenario, Ground(DEMO, 1), made, lambda _: None).run([part], 1, None)
    assert [(one.system, one.items) for one in made.points] == [("siglit", 1), (FLOODED, 4)]
    assert all(one.summary.good and not one.summary.errors for one in made.points)
    bulk = sum("x-priority: bulk" in head for head in server.heads)
    assert 0 < bulk < len(server.heads)
    assert not made.failed


def test_a_target_that_could_not_be_judged_is_not_met() -> None:
    """Where all was asked for: else the baselines that fail would make the run succeed."""
    with EchoServer() as server:
        found = contest(stand(server.url))
    assert found.judged()[1]
    assert found.code == 0
    found.options.clear()
    assert found.code == 1


def test_a_failing_point_fails_the_run() -> None:
    """It is named, and what was measured is kept."""
    with EchoServer(lambda number: Behaviour(status=500 if number == 15 else 200)) as server:
        found = contest(stand(server.url))
    assert found.code == 2
    (failure,) = found.failed
    assert failure.line() == "crowd, text, siglit: failed: level 4: 12.50 % errors: 1 × status 500"
    assert len(found.points) == 2


@pytest.mark.parametrize(("name", "code"), [(BASELINE, 0), ("siglit", 2)])
def test_a_baseline_may_be_wrong_but_not_the_service_itself(name: str, code: int) -> None:
    """Both are timed all the same, so that the price of being wrong is seen."""
    with EchoServer() as server:
        found = contest(stand(server.url, name=name), proof=Proof(DEMO))
    assert found.code == code
    (remark,) = found.failed if code else found.wrong
    assert remark.reason == "wrong: text: vectors of 8 numbers, not 96"
    assert len(found.points) == 2


def test_a_system_without_vectors_is_not_timed() -> None:
    """There is nothing to time, and every point would fail."""
    with EchoServer(lambda _: Behaviour(status=500)) as server:
        found = contest(stand(server.url, name=BASELINE), proof=Proof(DEMO))
    assert found.points == []
    assert found.wrong[0].reason == "wrong: no vectors of text: status 500"


@pytest.mark.parametrize(
    ("reason", "code"), [(StartError("no such model"), 2), (Absent("no nginx"), 0)]
)
def test_a_system_that_does_not_start_fails_the_run_but_one_that_is_absent_does_not(
    reason: Exception, code: int
) -> None:
    """Both are named with their reason."""
    found = contest(stand(reason=reason))
    assert found.code == code
    assert str(reason) in report(found)


def test_a_short_comparison_on_real_systems(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """siglit and the bare towers, proven and measured; whether targets are met is not asked."""
    arguments = ["latency", "--requests", "5", "--seconds", "0.2", "--cores", "1"]
    arguments += ["--systems", "siglit,bare", "--name", "short"]
    assert main([*arguments, "--out", str(tmp_path)]) in (0, 1)
    found = Result.read(next(tmp_path.glob("short-*.json")))
    systems = ["siglit", "bare"]
    assert [one.system for one in found.points] == systems * 2
    assert not found.failed
    assert not found.wrong
    assert all(one.cpu_ms for one in found.points if one.system == "siglit")
    assert {"flask", "gunicorn", "litserve"} <= found.options["versions"].keys()
    assert "text: p50 of siglit − bare, ms" in capsys.readouterr().out


def test_one_that_is_cut_off_leaves_nobody_behind(tmp_path: Path) -> None:
    """By SIGTERM, as a scheduler's time limit does it."""
    command = [sys.executable, "-m", "bench.compare", "crowd", "--cores", "1"]
    command += ["--out", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert any("crowd, text, 500 clients, round 1: siglit" in one for one in process.stderr)
        known = awaited(lambda: _with_grandchildren(psutil.Process(process.pid)))
        process.send_signal(signal.SIGTERM)
        process.stderr.close()
        assert process.wait(60) == 130
        awaited(lambda: not survivors(known))
    finally:
        process.kill()


def _with_grandchildren(process: psutil.Process) -> dict[int, psutil.Process]:
    """All below it, once there are such: then the server itself is on its feet."""
    found = births(one.pid for one in process.children(recursive=True))
    return found if len(found) > len(process.children()) else {}


ABSENT = (
    "", "no-such", "latency --systems siglit,no-such", "gpu-text --device cuda:63",
    "gpu-text --device no-such",
)  # fmt: skip


@pytest.mark.parametrize("arguments", ABSENT)
def test_what_there_is_not_is_named(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With exit code 2, before anything starts."""
    assert main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert any(word in error for word in ("such", "name scenarios", "does not have it"))
