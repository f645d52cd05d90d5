"""What a level asks for and how processes share it."""

import pytest

from bench.load.level import PLACES_EACH, RATE_EACH, Level

MANY = 100 * PLACES_EACH


@pytest.mark.parametrize(
    ("level", "asked", "cores", "processes"),
    [
        (Level(1, concurrency=10), 0, 16, 1),  # more would only take cores from the server
        (Level(1, rate=10), 0, 16, 1),
        (Level(1, concurrency=4 * PLACES_EACH), 0, 64, 4),  # as many as it needs
        (Level(1, rate=3 * RATE_EACH), 0, 64, 3),
        (Level(1, concurrency=MANY), 0, 8, 4),  # half the cores stay free
        (Level(1, concurrency=MANY), 0, 1, 1),
        (Level(1, concurrency=10), 3, 1, 3),  # as asked
        (Level(1, concurrency=2), 8, 16, 2),  # none is left without work
        (Level(1, concurrency=50, requests=3), 8, 16, 3),
    ],
)
def test_a_level_is_run_by_as_many_processes_as_it_needs(
    level: Level, asked: int, cores: int, processes: int
) -> None:
    """Or as many as were asked for, and none without work."""
    assert level.processes(asked, cores) == processes
