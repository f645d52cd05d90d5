"""Ledger: workers see whether somebody waits for a job, HTTP processes whether it was begun."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litapi.errors import Overloaded
from litapi.messages import JobId
from litapi.transport.ledger import Ledger


def test_a_job_is_begun_and_with_the_worker_that_took_it_last_until_that_one_is_lost() -> None:
    """Then it waits in the queue again, and may be given up there; number 0 is no nobody."""
    ledger = Ledger()
    slots = ledger.slots()
    name = slots.take()
    assert (slots.begun(name), slots.holder(name)) == (False, None)
    for worker in (0, 65_000, 3):
        ledger.hold(name, worker)
        assert slots.holder(name) == worker
    assert ledger.begin(name)
    assert slots.begun(name)
    slots.again(name)
    assert (slots.begun(name), slots.holder(name)) == (False, None)
    assert ledger.wanted(name)


def test_a_place_that_has_another_job_now_does_not_speak_for_the_one_before() -> None:
    """A message that lies in the queue for long, or a worker too late, means no newer job."""
    ledger = Ledger()
    slots = ledger.slots()
    old = slots.take()
    slots.give_back(old)
    new = slots.take()
    assert old[0] == new[0]
    assert (ledger.wanted(old), ledger.wanted(new)) == (False, True)
    ledger.hold(old, 2)
    assert not ledger.begin(old)
    assert (slots.begun(new), slots.holder(new)) == (False, None)
    ledger.hold(new, 1)
    assert slots.holder(new) == 1


def test_each_process_has_slots_of_its_own_and_a_job_beyond_them_is_refused() -> None:
    """A slot that is given back serves the next job; the id tells which process sent it."""
    ledger = Ledger(2, size=3)
    for process in range(2):
        slots = ledger.slots(process)
        ids = [slots.take() for _ in range(3)]
        assert len(set(ids)) == 3
        assert {ledger.process(one) for one in ids} == {process}
        with pytest.raises(Overloaded):
            slots.take()
        slots.give_back(ids[1])
        assert slots.take()[0] == ids[1][0]


def test_the_jobs_of_a_process_that_died_are_wanted_no_more() -> None:
    """Its clients went with it; those of the other process are still there."""
    ledger = Ledger(2)
    dead, other = ledger.slots(0), ledger.slots(1)
    orphan, kept = dead.take(), other.take()
    fresh = ledger.slots(0).take()
    assert not ledger.wanted(orphan)
    assert ledger.wanted(kept)
    assert ledger.wanted(fresh)


@given(st.lists(st.sampled_from(["take", "give back", "begin", "again"]), max_size=60))
def test_exactly_the_jobs_under_way_are_wanted(moves: list[str]) -> None:
    """Whatever happens in whatever order."""
    ledger = Ledger()
    slots = ledger.slots()
    held: list[JobId] = []
    gone: list[JobId] = []
    for move in moves:
        if move == "take":
            held.append(slots.take())
        elif held and move == "give back":
            gone.append(held.pop(0))
            slots.give_back(gone[-1])
        elif held and move == "begin":
            ledger.begin(held[-1])
        elif held:
            slots.again(held[-1])
    assert all(map(ledger.wanted, held))
    assert not any(map(ledger.wanted, gone))
