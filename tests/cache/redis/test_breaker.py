from hypothesis import given
from hypothesis import strategies as st

from cache.redis.breaker import Breaker, Circuit
from tests.support.clock import Clock


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(clock)
    fail(breaker, 3)
    return breaker


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.failed()


def trials(breaker: Breaker, clock: Clock, seconds: float) -> list[float]:
    """When a trial was let through, if somebody asks 64 times a second and each trial fails."""
    began, when = clock.now, []
    while clock.now < began + seconds:
        if breaker.allow():
            when.append(round(clock.now - began, 2))
            breaker.failed()
        clock.now += 1 / 64  # exact in binary
    return when


def test_the_third_failure_in_a_row_opens_it() -> None:
    """Two may be chance, and a success between them starts the count anew."""
    breaker = Breaker(Clock())
    for _ in range(10):
        fail(breaker, 2)
        assert breaker.state is Circuit.CLOSED
        breaker.succeeded()
    for _ in range(3):
        assert breaker.allow()
        breaker.failed()
    assert breaker.state is Circuit.OPEN
    assert not breaker.allow()


def test_after_half_a_second_one_trial_goes_and_the_others_wait_for_it() -> None:
    """An outage costs one request its budget; a trial that never reports holds no door for ever."""
    clock = Clock()
    breaker = opened(clock)
    clock.now += 0.49
    assert not breaker.allow()
    clock.now += 0.02
    assert [breaker.allow() for _ in range(5)] == [True, False, False, False, False]
    assert breaker.state is Circuit.HALF_OPEN
    clock.now += 0.4
    assert not breaker.allow()
    clock.now += 0.2
    assert breaker.allow()


def test_a_trial_that_succeeds_closes_it() -> None:
    """However late; and the next outage begins with the short wait again."""
    clock = Clock()
    breaker = opened(clock)
    trials(breaker, clock, 20)
    clock.now += 10
    assert breaker.allow()
    breaker.succeeded()
    assert breaker.state is Circuit.CLOSED
    fail(breaker, 3)
    assert trials(breaker, clock, 1.0) == [0.5]


def test_the_wait_doubles_from_half_a_second_to_ten() -> None:
    """A long outage is asked about ever more rarely."""
    clock = Clock()
    when = trials(opened(clock), clock, 50)
    gaps = [round(b - a, 1) for a, b in zip([0.0, *when], when, strict=False)]
    assert gaps == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]


def test_late_failures_of_the_same_outage_do_not_lengthen_the_wait() -> None:
    """Fifty requests were under way when it opened; theirs is no new news."""
    clock = Clock()
    breaker = opened(clock)
    fail(breaker, 50)
    assert trials(breaker, clock, 1.0) == [0.5]


def test_an_invitation_that_proves_wrong_costs_one_trial() -> None:
    """It ends the wait at once, which goes on doubling from where it was."""
    clock = Clock()
    breaker = Breaker(clock)
    breaker.invite()  # means nothing while closed
    fail(breaker, 3)
    breaker.invite()
    assert trials(breaker, clock, 3.9) == [0.0, 1.0, 3.0]


EVENTS = st.sampled_from(["allow", "succeeded", "failed", "invite", 0.1, 3.0])


@given(st.lists(EVENTS, max_size=60))
def test_whatever_happens_it_lets_a_trial_through_within_ten_seconds(
    events: list[str | float],
) -> None:
    """No history locks it for ever, and open never lets two through at once."""
    clock = Clock()
    breaker = Breaker(clock)
    for event in events:
        if isinstance(event, float):
            clock.now += event
        else:
            allowed = getattr(breaker, event)()
            assert not (allowed and breaker.state is Circuit.OPEN)
            assert event != "succeeded" or breaker.state is Circuit.CLOSED
    clock.now += 10.01
    assert breaker.allow()
    breaker.succeeded()
    assert breaker.state is Circuit.CLOSED
