"""Schedules: when requests are due, whoever sends them."""

from itertools import islice, pairwise
from statistics import fmean, pstdev
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from bench.load.level import Level
from bench.load.pacer import Pacer, Turn


def turns(seed: int = 0, **level: Any) -> list[Turn]:
    """All turns of a level."""
    return list(Pacer(Level(1, **level), seed).turns())


def dues(seed: int = 0, **level: Any) -> list[float]:
    """When each is due."""
    return [turn.due for turn in turns(seed, **level)]


def test_a_closed_loop_has_all_its_turns_due_at_once() -> None:
    """They wait for a free place, not for a time."""
    found = turns(concurrency=3, requests=5)
    assert found == [Turn(i, 0.0) for i in range(5)]


def test_a_closed_loop_without_a_number_of_requests_never_runs_out() -> None:
    """Its duration is the sender's to watch."""
    found = list(islice(Pacer(Level(1, concurrency=3, duration=0.1)).turns(), 10_000))
    assert found[-1].number == 9_999


def test_a_constant_rate_has_equal_gaps() -> None:
    """Ten a second are a tenth of a second apart."""
    assert dues(rate=10, requests=5) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_a_constant_rate_does_not_drift() -> None:
    """The hundred thousandth request is due exactly when it should be."""
    level = Level(1, rate=3)
    last = next(islice(Pacer(level).turns(), 99_999, None))
    assert last == Turn(99_999, 33_333.0)


def test_an_open_loop_of_a_duration_has_rate_times_duration_turns() -> None:
    """The last is due before the end."""
    found = dues(rate=20, duration=3)
    assert len(found) == 60
    assert found[-1] < 3


def test_the_nearer_of_two_bounds_holds() -> None:
    """Requests and duration may be given together."""
    assert len(dues(rate=10, duration=3, requests=7)) == 7
    assert len(dues(rate=10, duration=0.5, requests=7)) == 5


@pytest.mark.parametrize("arrivals", ["constant", "poisson"])
def test_turns_are_numbered_in_order_and_never_go_back(arrivals: str) -> None:
    """Each number once, no due time before the one before it."""
    found = turns(rate=100, requests=500, arrivals=arrivals)
    assert [turn.number for turn in found] == list(range(500))
    assert all(one.due <= other.due for one, other in pairwise(found))


def test_poisson_arrivals_have_the_mean_gap_of_their_rate() -> None:
    """Within five standard errors."""
    found = dues(rate=50, requests=20_000, arrivals="poisson")
    gaps = [later - sooner for sooner, later in pairwise(found)]
    assert fmean(gaps) == pytest.approx(1 / 50, rel=5 / len(gaps) ** 0.5)


def test_poisson_gaps_spread_as_far_as_their_mean() -> None:
    """Exponential gaps; a constant rate's would not spread at all."""
    found = dues(rate=50, requests=20_000, arrivals="poisson")
    gaps = [later - sooner for sooner, later in pairwise(found)]
    assert pstdev(gaps) == pytest.approx(fmean(gaps), rel=0.05)
    assert min(gaps) < 0.1 / 50 < 3 / 50 < max(gaps)


def test_poisson_arrivals_are_settled_by_the_seed() -> None:
    """The same again, or others."""
    same = [dues(seed=4, rate=50, requests=50, arrivals="poisson") for _ in range(2)]
    assert same[0] == same[1]
    assert dues(seed=5, rate=50, requests=50, arrivals="poisson") != same[0]


def test_each_level_has_poisson_arrivals_of_its_own() -> None:
    """One unlucky burst is not met at every level."""
    one, other = (
        [t.due for t in Pacer(Level(n, rate=9, requests=9, arrivals="poisson")).turns()]
        for n in (1, 2)
    )
    assert one != other


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
    pacer = Pacer(Level(1, concurrency=4, rate=rate, arrivals=arrivals, requests=requests), 7)
    shares = [list(pacer.turns(i, processes)) for i in range(processes)]
    together = sorted((turn for share in shares for turn in share), key=lambda turn: turn.number)
    assert together == list(pacer.turns())
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
