"""What a level asks for and how processes share it."""

import pytest

from bench.load.level import PLACES_EACH, RATE_EACH, Level


def test_a_closed_level_is_named_by_its_requests_in_flight() -> None:
    """The table's first column."""
    assert Level(1, concurrency=50).name == "50"


@pytest.mark.parametrize(("rate", "name"), [(200.0, "200/s"), (0.5, "0.5/s"), (12.25, "12.25/s")])
def test_an_open_level_is_named_by_its_rate(rate: float, name: str) -> None:
    """A rate is told from a concurrency by its unit."""
    assert Level(1, rate=rate).name == name


@pytest.mark.parametrize("processes", range(1, 9))
@pytest.mark.parametrize("concurrency", [1, 7, 8, 100])
def test_the_shares_of_the_processes_add_up(concurrency: int, processes: int) -> None:
    """No place is lost, none is held twice, and no process has two more than another."""
    level = Level(1, concurrency=concurrency)
    shares = [level.share(i, processes) for i in range(processes)]
    assert sum(shares) == concurrency
    assert max(shares) - min(shares) <= 1


def test_an_open_level_shares_its_connections() -> None:
    """What is bounded there is the connections."""
    level = Level(1, rate=10, connections=9)
    assert [level.share(i, 2) for i in range(2)] == [5, 4]


@pytest.mark.parametrize("cores", [1, 2, 3, 16])
def test_a_small_level_is_run_by_one_process(cores: int) -> None:
    """More processes than needed would only take cores from the server."""
    assert Level(1, concurrency=10).processes(0, cores) == 1
    assert Level(1, rate=10).processes(0, cores) == 1


def test_a_large_level_is_run_by_as_many_processes_as_it_needs() -> None:
    """One for each so many requests in flight, or a second."""
    assert Level(1, concurrency=4 * PLACES_EACH).processes(0, 64) == 4
    assert Level(1, rate=3 * RATE_EACH).processes(0, 64) == 3


def test_half_the_cores_stay_free() -> None:
    """The server may run on the same machine."""
    assert Level(1, concurrency=100 * PLACES_EACH).processes(0, 8) == 4
    assert Level(1, concurrency=100 * PLACES_EACH).processes(0, 1) == 1


def test_the_asked_number_of_processes_is_kept() -> None:
    """The caller knows best."""
    assert Level(1, concurrency=10).processes(3, 1) == 3


def test_no_process_is_left_without_work() -> None:
    """Never more processes than requests in flight, or than requests."""
    assert Level(1, concurrency=2).processes(8, 16) == 2
    assert Level(1, concurrency=50, requests=3).processes(8, 16) == 3
