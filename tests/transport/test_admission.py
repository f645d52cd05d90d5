"""Admission: memory and waiting stay bounded, and the first request always fits."""

import math
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litapi.errors import DeadlineExceeded, Overloaded, RateLimited
from litapi.transport.admission import CROWD, Admission
from litapi.transport.client import ANYONE, Asker, Client


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Seconds pass on a clock that otherwise stands."""
    now = [1000.0]
    monkeypatch.setattr("litapi.transport.admission.time.monotonic", lambda: now[0])

    def passed(seconds: float) -> None:
        now[0] += seconds

    return passed


def _admission(items: int = 10, size: int = 1000, wait: float = 10.0) -> Admission:
    return Admission(max_items=items, max_bytes=size, max_wait=wait)


def test_work_beyond_the_items_is_refused_at_once_with_a_time_to_come_back() -> None:
    """The eleventh item meets 429 and a Retry-After; the first request may be any size."""
    admission = _admission(items=10)
    with admission.admit(64, 4096):
        assert admission.items == 64
    with admission.admit(10, 1):
        with pytest.raises(Overloaded) as caught, admission.admit(1, 1):
            pass
        assert caught.value.status == 429
        assert caught.value.retry_after is not None
        assert caught.value.retry_after >= 1
    assert admission.refused == 1


def test_room_is_given_back_however_the_work_ends() -> None:
    """Errors and cancellation free what they held."""
    admission = _admission()
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), admission.admit(4, 40):
            raise error
    assert (admission.items, admission.bytes) == (0, 0)


def test_a_queue_that_would_take_too_long_is_refused_before_it_is_full() -> None:
    """Once work is known to be slow, waiting is bounded and not only memory."""
    admission = _admission(items=1000, wait=1.0)
    admission.seconds_an_item = 0.5
    with admission.admit(3, 1), pytest.raises(Overloaded), admission.admit(1, 1):
        pass


def test_the_pace_is_learnt_from_finished_work(passes: Callable[[float], None]) -> None:
    """Slow work is known after a few jobs, quick work lowers the guess; failures teach nothing."""
    admission = _admission(items=100)
    admission.seconds_an_item = 10.0
    for _ in range(100):
        with admission.admit(1, 1):
            passes(0.0)
    assert admission.seconds_an_item < 0.1
    admission.seconds_an_item = 0.0
    for _ in range(20):
        with admission.admit(CROWD, 1):
            passes(0.002)
    learnt = admission.seconds_an_item
    assert 0.8 * 0.002 / CROWD <= learnt <= 0.002 / CROWD
    with pytest.raises(ValueError, match="x"), admission.admit(1, 1):
        raise ValueError("x")
    assert admission.seconds_an_item == learnt


def test_one_slow_answer_to_a_lone_item_does_not_refuse_a_crowd(
    passes: Callable[[float], None],
) -> None:
    """A stall of half a second is not the pace of each of the thousand items that come after it."""
    admission = _admission(items=2000, size=2000, wait=10.0)
    with admission.admit(1, 1):
        passes(0.5)
    with admission.admit(1000, 1):
        assert admission.ahead(ANYONE) * admission.seconds_an_item < 10.0
        with admission.admit(100, 1):
            pass
    assert admission.refused == 0


def test_nothing_is_learnt_from_work_that_waited_for_a_worker(
    passes: Callable[[float], None],
) -> None:
    """Minutes spent on loading a model again are not the pace of the model."""
    admission = _admission()
    with admission.admit(1, 1):
        admission.whole_since = lambda: math.inf  # a worker is lost meanwhile
    assert admission.seconds_an_item == 0.0
    with admission.admit(1, 1):
        back = time.monotonic() + 0.001
        admission.whole_since = lambda: back  # and is there again before the answer
        passes(0.002)
    assert admission.seconds_an_item == 0.0
    with admission.admit(1, 1):
        passes(0.001)
    assert admission.seconds_an_item > 0.0


def asker(name: str, weight: float = 1.0, **more: float) -> Asker:
    """A request of that client."""
    deadline = more.pop("deadline", math.inf)
    return Asker(Client(name, name, weight, **more), deadline=deadline)


def test_a_client_above_its_share_is_refused_first() -> None:
    """Alone it has all of a bound; beside another, that one finds room until it has its share."""
    admission = _admission(items=12)
    with ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(admission.admit(1, 1, asker("large")))
        stack.enter_context(admission.admit(3, 1, asker("small")))
        with pytest.raises(Overloaded):
            admission.admit(1, 1, asker("large"))
    assert (admission.items, admission.clients, admission.weights) == (0, {}, 0.0)


def test_shares_go_by_weight_and_whoever_waits_is_told_for_how_long() -> None:
    """A client that waits for its own backlog comes back when that is done."""
    admission = _admission(items=1000, wait=2.0)
    admission.seconds_an_item = 0.1
    with admission.admit(30, 1, asker("light")), admission.admit(30, 1, asker("heavy", 3.0)):
        assert admission.ahead(asker("light")) == 60  # all that there is
        assert admission.ahead(asker("heavy", 3.0)) == 40  # three turns of four are its own
        with pytest.raises(Overloaded) as caught:
            admission.admit(1, 1, asker("light"))
        assert caught.value.retry_after == 4  # 6 s of work stand before it, and 2 are allowed
        admission.admit(1, 1, asker("new"))


def test_a_key_with_as_many_in_flight_as_it_may_is_refused() -> None:
    """Its own limit; one request may be larger where nothing else of it is under way."""
    admission = _admission(items=1000)
    admission.seconds_an_item = 1.0
    with admission.admit(1, 1), admission.admit(8, 1, asker("a", in_flight=4)):
        with pytest.raises(RateLimited) as caught:
            admission.admit(1, 1, asker("a", in_flight=4))
        assert caught.value.retry_after == 10  # five too many, and it has every second turn
        admission.admit(1, 1, asker("b", in_flight=4))


def test_what_cannot_be_done_in_its_time_is_refused_with_the_estimate() -> None:
    """Unless nothing is under way: then nothing is known for sure."""
    admission = _admission(items=1000)
    admission.seconds_an_item = 1.0
    soon = asker("a", deadline=time.monotonic() + 2.0)
    admission.admit(50, 1, soon)
    with admission.admit(10, 1, asker("a")):
        with pytest.raises(DeadlineExceeded, match="about 11 s"):
            admission.admit(1, 1, soon)
        admission.admit(1, 1, asker("b", deadline=time.monotonic() + 5.0))


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 500)), max_size=40))
def test_what_is_in_flight_never_passes_the_bounds_unless_it_came_first(
    jobs: list[tuple[int, int]],
) -> None:
    """Any sequence of nested work keeps items and bytes bounded, and all of it is given back."""
    admission = _admission(items=30, size=900)

    def nest(rest: list[tuple[int, int]], first: bool) -> None:
        if not rest:
            return
        try:
            with admission.admit(*rest[0]):
                assert first or (admission.items <= 30 and admission.bytes <= 900)
                nest(rest[1:], False)
        except Overloaded:
            nest(rest[1:], False)

    nest(jobs, True)
    assert (admission.items, admission.bytes) == (0, 0)
