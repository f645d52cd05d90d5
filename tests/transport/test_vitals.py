"""Vitals: a worker that stands still or decodes for too long is known, and no other is."""

import os
import threading
import time
from collections.abc import Callable

import pytest

from litapi.transport.vitals import LONGEST_LOOK, Vitals, Watcher, cpu_seconds, urgency
from tests.support.patience import awaited

PID = os.getpid()


class Clock:
    """`time.monotonic`, as a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("litapi.transport.vitals.time.monotonic", lambda: self.now)

    def looks(self, watcher: Watcher, seconds: float, limit: float = 5.0) -> bool:
        """Look every quarter of a second for that long; whether it was ever found to hang."""
        hung = False
        for _ in range(round(seconds * 4)):
            self.now += 0.25
            hung = watcher.hangs(PID, limit) or hung
        return hung


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that stands until it is moved."""
    return Clock(monkeypatch)


def test_a_worker_whose_beats_stop_hangs_after_the_limit(clock: Clock) -> None:
    """Stopped, idle or not: nothing of it moves. Without any sign yet it is loading."""
    vitals = Vitals(2)
    watcher = Watcher(vitals, 1)
    assert not clock.looks(watcher, 600)
    vitals.beat(1)
    assert not clock.looks(watcher, 5)
    assert clock.looks(watcher, 1)
    vitals.beat(1)
    assert not clock.looks(watcher, 5)


def test_a_worker_that_stays_in_the_model_hangs_though_it_lives(clock: Clock) -> None:
    """One batch for too long; many batches one after another are none."""
    vitals = Vitals()
    watcher = Watcher(vitals, 0)

    def batch(since: float) -> bool:
        vitals.in_model(0, since)
        vitals.beat(0)
        return clock.looks(watcher, 1)

    assert not any(batch(float(n + 1)) for n in range(20))
    assert any(batch(99.0) for _ in range(7))
    vitals.in_model(0, 0.0)
    assert not any(batch(0.0) for _ in range(20))


def test_time_in_which_the_judge_did_not_run_is_not_counted(clock: Clock) -> None:
    """A machine that was suspended finds its workers as they were."""
    vitals = Vitals()
    watcher = Watcher(vitals, 0)
    vitals.beat(0)
    assert not clock.looks(watcher, 3)
    clock.now += 3600
    assert not watcher.hangs(PID, 3 + 2 * LONGEST_LOOK)


def test_a_worker_that_was_replaced_starts_afresh(clock: Clock) -> None:
    """Its place is empty until the next one gives a sign."""
    vitals = Vitals()
    watcher = Watcher(vitals, 0)
    vitals.beat(0)
    vitals.in_model(0, 7.0)
    vitals.begin(0, 3, (1, 2), 0)
    watcher.forget()
    assert not clock.looks(watcher, 60)
    assert list(vitals.decoding(0)) == []


def decoding(vitals: Vitals, slot: int, work: Callable[[], object]) -> threading.Event:
    """A decode thread that begins with an item and works, until the event is set."""
    began, done = threading.Event(), threading.Event()

    def run() -> None:
        vitals.begin(0, slot, (slot, 10 + slot), slot)
        began.set()
        while not done.is_set():
            work()

    threading.Thread(target=run, daemon=True).start()
    assert began.wait(60)
    return done


def test_only_a_thread_that_uses_the_cpu_is_slow() -> None:
    """Its own time counts, not that of the clock: the others may have had the cores. What it was
    done with at the last moment is not named."""
    vitals = Vitals()
    watcher, later = Watcher(vitals, 0), Watcher(vitals, 0)
    ends = [decoding(vitals, 0, lambda: time.sleep(0.01)), decoding(vitals, 1, lambda: None)]
    try:
        awaited(lambda: watcher.slow(PID, 0.3))
        awaited(lambda: later.slow(PID, 0.3))
    finally:
        for end in ends:
            end.set()
    assert watcher.forget() == {(1, 11): 1}
    vitals.begin(0, 1, (1, 12), 0)  # the next item
    assert later.slow(PID, 0.3)
    assert [later.forget(), later.forget()] == [{}, None]


def test_a_decode_thread_that_stands_still_hangs_and_one_that_works_does_not(clock: Clock) -> None:
    """Neither its item nor its CPU time changes."""
    vitals = Vitals()
    watcher = Watcher(vitals, 0)
    blocked = threading.Event()
    end = decoding(vitals, 0, blocked.wait)
    assert not clock.looks(watcher, 4)
    vitals.begin(0, 0, (0, 11), 0)  # the next item: counted from its own beginning
    assert not clock.looks(watcher, 4)
    awaited(lambda: clock.looks(watcher, 4))  # once it has come to stand still
    end.set()
    blocked.set()


def test_a_thread_that_is_gone_has_used_nothing() -> None:
    """The judge may come too late; it must not fail."""
    assert cpu_seconds(PID, 2**22 + 1) == 0.0
    assert cpu_seconds(2**22 + 1, 1) == 0.0
    assert cpu_seconds(PID, threading.get_native_id()) >= 0.0


def test_only_another_worker_on_the_same_device_is_seen() -> None:
    """Text and image towers share a card; one that is gone wants nothing."""
    text, other, image = urgency(["cuda:0", "cuda:1", "cuda:0"])
    image.say(True)
    assert [one.elsewhere() for one in (text, other, image)] == [True, False, False]
    image.say(False)
    assert not text.elsewhere()
