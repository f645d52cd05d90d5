"""What a level asks for, and when its requests are due, whoever sends them."""

from itertools import islice, pairwise
from statistics import fmean, pstdev
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from bench.load.level import PLACES_EACH, RATE_EACH, Level

MANY = 100 * PLACES_EACH


def turns(seed: int = 0, number: int = 1, **level: Any) -> list[tuple[int, float]]:
    """All turns of a level."""
    return list(Level(number, **level).turns(seed))


def poisson(seed: int = 4, number: int = 1, requests: int = 50) -> list[float]:
    """When each is due, at fifty a second."""
    found = turns(seed, number, rate=50, requests=requests, arrivals="poisson")
    return [due for _, due in found]


def test_a_closed_loop_has_all_its_turns_due_at_once() -> None:
    """They wait for a free place, not for a time; without a number of them they never run out."""
    assert turns(concurrency=3, requests=5) == [(i, 0.0) for i in range(5)]
    endless = Level(1, concurrency=3, duration=0.1).turns()
    assert next(islice(endless, 9_999, None)) == (9_999, 0.0)


def test_a_constant_rate_has_equal_gaps_and_does_not_drift() -> None:
    """The hundred thousandth request is due exactly when it should be."""
    due = [due for _, due in turns(rate=10, requests=5)]
    assert due == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    last = next(islice(Level(1, rate=3).turns(), 99_999, None))
    assert last == (99_999, 33_333.0)


@pytest.mark.parametrize(("duration", "requests", "many"), [(3, 0, 30), (3, 7, 7), (0.5, 7, 5)])
def test_an_open_loop_ends_at_the_nearer_of_its_bounds(
    duration: float, requests: int, many: int
) -> None:
    """Requests and duration may be given together; the last is due before the end."""
    found = turns(rate=10, duration=duration, requests=requests)
    assert len(found) == many
    assert found[-1][1] < duration


def test_poisson_gaps_have_the_mean_of_their_rate_and_spread_as_far() -> None:
    """Within five standard errors; a constant rate's would not spread at all."""
    gaps = [later - sooner for sooner, later in pairwise(poisson(requests=20_000))]
    assert fmean(gaps) == pytest.approx(1 / 50, rel=5 / len(gaps) ** 0.5)
    assert pstdev(gaps) == pytest.approx(fmean(gaps), rel=0.05)
    assert min(gaps) < 0.1 / 50 < 3 / 50 < max(gaps)


def test_poisson_arrivals_are_settled_by_seed_and_level() -> None:
    """The same again, or others: one unlucky burst is not met at every level."""
    assert poisson() == poisson()
    assert poisson() != poisson(seed=5)
    assert poisson() != poisson(number=2)


@settings(deadline=None, max_examples=60)
@given(
    processes=some.integers(1, 7),
    requests=some.integers(1, 60),
    rate=some.sampled_from([0.0, 5.0, 40.0]),
    arrivals=some.sampled_from(["constant", "poisson"]),
)
def test_the_processes_send_the_same_traffic_as_one_would(
    processes: int, requests: int, rate: float, arrivals: Any
) -> None:
    """Their shares together are the whole schedule, each turn once."""
    level = Level(1, concurrency=4, rate=rate, arrivals=arrivals, requests=requests)
    shares = [list(level.turns(7, i, processes)) for i in range(processes)]
    together = sorted(turn for share in shares for turn in share)
    assert together == list(level.turns(7))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


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
