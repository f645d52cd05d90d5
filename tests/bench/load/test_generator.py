"""One process's share of a level, against a server that can misbehave."""

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from bench.load.connection import Address
from bench.load.generator import Fleet, FleetError, Generator, Interrupt, Order
from bench.load.level import Level
from bench.load.recording import STOPPED, Recorder, Recording, Sample, Stage
from bench.load.route import Form, Route
from bench.load.summary import Summary
from bench.load.workload import Target, Workload, drawings
from tests.support.echo_server import Behaviour, EchoServer, Spoilt, well
from tests.support.patience import awaited

PICTURES = drawings(0, 3)


def order(server: EchoServer, level: Level, form: Form = "v1", **workload: Any) -> Order:
    """To run a level against a server."""
    load = Workload(pictures=PICTURES, **workload)
    return Order(Route(Address.of(server.url), form), load, level, timeout=30.0)


def carried_out(given: Order, stop_after: float | None = None) -> Generator:
    """The generator, after its run."""

    async def main() -> Generator:
        generator = Generator(given)
        await generator.prepare()
        if stop_after is not None:
            asyncio.get_running_loop().call_later(stop_after, generator.stop)
        await generator.run(time.monotonic())
        return generator

    return uvloop.run(main())


def closed(
    behave: Callable[[int], Behaviour] = well, requests: int = 20, **changes: Any
) -> list[Sample]:
    """Samples of a closed loop of four."""
    with EchoServer(behave) as server:
        given = order(server, Level(1, concurrency=4, requests=requests))
        return carried_out(replace(given, **changes)).samples


def errors(samples: list[Sample]) -> Counter[str | None]:
    """How often each."""
    return Counter(one.error for one in samples)


LEVELS = [
    Level(1, concurrency=1, requests=15),
    Level(1, concurrency=6, requests=40),
    Level(1, concurrency=3, duration=0.2),
    Level(1, rate=150.0, duration=0.2),
    Level(1, rate=200.0, requests=30, arrivals="poisson"),
    Level(1, rate=500.0, requests=40, connections=1),
]


@pytest.mark.parametrize("level", LEVELS, ids=str)
def test_every_request_that_was_sent_has_exactly_one_sample(level: Level) -> None:
    """The server's count is the generator's, and times are in order: due, sent, first and last."""
    with EchoServer() as server:
        samples = carried_out(order(server, level)).samples
        assert len(server.items) == len(samples) > 0
    assert sorted(one.number for one in samples) == list(range(len(samples)))
    assert errors(samples) == {None: len(samples)}
    for one in samples:
        assert one.first_byte is not None
        assert one.scheduled - 0.001 <= one.sent <= one.first_byte <= one.done


def test_a_stall_of_the_server_shows_in_the_latencies_of_all_it_held_up() -> None:
    """No coordinated omission: a second's stall at 100/s is seen by many requests, not by one."""
    behave = lambda number: Behaviour(stall=1.0 if number == 20 else 0.0)  # noqa: E731
    with EchoServer(behave) as server:
        samples = carried_out(order(server, Level(1, rate=100.0, duration=1.5))).samples
    assert len(samples) == 150
    assert sum(one.latency > 0.5 for one in samples) >= 40
    summary = Summary.of(Stage(Level(1, rate=100.0, duration=1.5), samples))
    assert summary.latency_ms is not None
    assert summary.latency_ms["p99"] > 800


def test_a_closed_loop_waits_for_the_server() -> None:
    """Never more under way than its concurrency."""
    samples = closed(lambda _: Behaviour(delay=0.01), requests=30)
    begun = [(one.sent, 1) for one in samples] + [(one.done, -1) for one in samples]
    under_way = most = 0
    for _, change in sorted(begun):
        under_way += change
        most = max(most, under_way)
    assert most == 4


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        *((Behaviour(status=status), f"status {status}") for status in (400, 500, 503)),
        (Behaviour(status=429), None),  # a server may say that it is full
        (Behaviour(half=True), "half-answer"),
        (Behaviour(silent=True), "closed"),
        (Behaviour(garbage=True), "malformed"),
    ],
)
def test_what_is_no_good_answer_is_named_and_the_run_goes_on(
    behaviour: Behaviour, error: str | None
) -> None:
    """Those after it are sent, on a new connection where that has to be."""
    samples = closed(lambda n: behaviour if n in (3, 4, 11) else Behaviour())
    assert errors(samples) == Counter([None] * 17 + [error] * 3)
    assert sum(one.good for one in samples) == 17


SPOILT: dict[Spoilt, str] = {
    "fewer": "too-few-vectors",
    "long": "not-unit",
    "dimension": "other-dimension",
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_wrong_body_is_an_error_though_its_status_is_200(spoilt: Spoilt) -> None:
    """Speed without vectors is no speed."""
    with EchoServer(lambda n: Behaviour(spoilt=spoilt if n == 5 else "")) as server:
        given = order(server, Level(1, concurrency=2, requests=10), batch=2)
        assert errors(carried_out(given).samples) == {None: 9, SPOILT[spoilt]: 1}


def test_a_request_that_takes_too_long_is_given_up() -> None:
    """After the timeout; the others are not held up by it."""
    samples = closed(lambda n: Behaviour(endless=n == 2), requests=12, timeout=1.5)
    assert errors(samples) == {None: 11, "timeout": 1}
    assert max(one.latency for one in samples) > 1.49  # the loop counts whole milliseconds


@pytest.mark.parametrize("form", ["v1", "embed", "raw"])
@pytest.mark.parametrize("target", ["text", "image"])
@pytest.mark.parametrize("batch", [1, 3])
def test_every_route_is_driven_and_checked(form: Form, target: Target, batch: int) -> None:
    """All items arrive, all vectors come back."""
    with EchoServer() as server:
        given = order(server, Level(1, concurrency=2, requests=6), form, target=target, batch=batch)
        generator = carried_out(given)
        assert len(set(server.items)) == 6 * batch
    assert errors(generator.samples) == {None: 6}
    assert all(one.checked and one.items == batch for one in generator.samples)
    assert generator.gauge.checked == 6


@pytest.mark.parametrize("behaviour", [well(0), Behaviour(old=True), Behaviour(chunked=True)])
def test_cache_states_and_timings_are_in_the_samples(behaviour: Behaviour) -> None:
    """Read from the headers, however the answer is framed; Flask hangs up after each."""
    samples = closed(lambda _: behaviour)
    assert errors(samples) == {None: 20}
    for one in samples:
        assert one.cache == {"miss": 1}
        assert one.timings == {"cache": 0.25, "infer": 2.5}


ENDLESS = pytest.mark.parametrize(
    "level", [Level(1, concurrency=3, duration=60.0), Level(1, rate=50.0, duration=60.0)]
)


@ENDLESS
def test_a_stopped_run_keeps_what_it_has(level: Level) -> None:
    """Answers under way are awaited, nothing more is sent."""
    with EchoServer(lambda _: Behaviour(delay=0.01)) as server:
        samples = carried_out(order(server, level), stop_after=0.2).samples
        assert len(server.items) == len(samples) > 0
    assert errors(samples) == {None: len(samples)}


@ENDLESS
def test_what_is_not_answered_when_stopped_is_marked(
    level: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sample each, neither good nor bad."""
    monkeypatch.setattr("bench.load.generator.GRACE", 0.1)
    with EchoServer(lambda _: Behaviour(endless=True)) as server:
        samples = carried_out(order(server, level), stop_after=0.2).samples
    assert len(samples) >= 3
    assert errors(samples) == {STOPPED: len(samples)}


def test_a_loop_that_is_held_up_shows_as_lag() -> None:
    """Here by a body of work in the loop itself, a tenth of a second long."""
    with EchoServer() as server:
        given = order(server, Level(1, concurrency=1, duration=0.4))

        async def main() -> Generator:
            generator = Generator(given)
            asyncio.get_running_loop().call_later(0.1, time.sleep, 0.1)
            await generator.run(time.monotonic())
            return generator

        gauge = uvloop.run(main()).gauge
    assert gauge.lag_max_ms > 50
    assert gauge.bound


def run(
    path: Path, server: EchoServer, level: Level, processes: int, interrupt: Interrupt
) -> tuple[Recording, int]:
    """The recording of a level, and the requests that were reported on the way."""
    told: list[int] = []
    with path.open("wb") as file:
        recorder = Recorder(file)
        recorder.run({})
        order = Order(Route(Address.of(server.url)), Workload(), level)
        Fleet(recorder, interrupt, told.append).run(order, processes)
        recorder.end(partial=interrupt.asked)
    return Recording.read(path), sum(told)


def once_it_runs(server: EchoServer, act: Callable[[], object]) -> None:
    """Do something beside the fleet when the first request was answered."""

    def wait() -> None:
        awaited(lambda: server.items)
        act()

    threading.Thread(target=wait, daemon=True).start()


def test_two_processes_send_one_level(tmp_path: Path) -> None:
    """Each request once, each process with its gauge, progress to the last request, none left."""
    with EchoServer() as server:
        level = Level(1, concurrency=6, requests=51)
        found, told = run(tmp_path / "a.jsonl", server, level, 2, Interrupt())
        assert len(set(server.items)) == len(server.items) == 51
    (stage,) = found.stages
    assert sorted(one.number for one in stage.samples) == list(range(51))
    assert sorted(gauge.process for gauge in stage.gauges) == [0, 1]
    assert told == 51
    assert all(one.good for one in stage.samples)
    assert multiprocessing.active_children() == []


def test_a_process_that_dies_is_noticed(tmp_path: Path) -> None:
    """Its samples are lost, and a level without them would be judged too well."""
    with EchoServer(lambda _: Behaviour(delay=0.01)) as server:

        def kill() -> None:
            (child,) = multiprocessing.active_children()
            os.kill(child.pid or 0, signal.SIGKILL)

        once_it_runs(server, kill)
        with pytest.raises(FleetError, match="died"):
            run(tmp_path / "a.jsonl", server, Level(1, rate=50.0, duration=300.0), 1, Interrupt())
    assert Recording.read(tmp_path / "a.jsonl").partial
