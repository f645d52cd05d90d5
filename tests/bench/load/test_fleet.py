"""Generator processes: started together, listened to, written down."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.load.connection import Address
from bench.load.generator import Fleet, FleetError, Interrupt, Order
from bench.load.level import Level
from bench.load.recording import Recorder, Recording
from bench.load.route import Route
from bench.load.workload import Workload
from tests.support.echo_server import Behaviour, EchoServer
from tests.support.patience import awaited


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
