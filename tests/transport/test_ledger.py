"""Interest: workers see whether somebody waits for a job, HTTP processes whether it was begun."""

from __future__ import annotations

import multiprocessing

from hypothesis import given
from hypothesis import strategies as st

from litapi.transport.ledger import PLACES, Interest, Name


def test_a_job_is_wanted_until_it_is_given_back() -> None:
    """And may be begun just as long."""
    interest = Interest()
    claims = interest.claims()
    name = claims.take()
    assert interest.wanted(name)
    claims.give_back(name)
    assert not interest.wanted(name)
    assert not interest.begin(name)
    assert not interest.begun(name)


def test_a_begun_job_is_known_as_begun_until_its_worker_is_lost() -> None:
    """Lost work waits in the queue again, and may be given up there."""
    interest = Interest()
    claims = interest.claims()
    name = claims.take()
    assert not claims.begun(name)
    assert interest.begin(name)
    assert claims.begun(name)
    claims.again(name)
    assert not claims.begun(name)
    assert interest.wanted(name)


def test_a_job_is_with_the_worker_that_took_it_last_until_that_one_is_lost() -> None:
    """The first worker's number is none that reads as nobody's."""
    interest = Interest()
    claims = interest.claims()
    name = claims.take()
    assert claims.holder(name) is None
    for worker in (0, 65_000, 3):
        assert interest.hold(name, worker)
        assert claims.holder(name) == worker
    claims.again(name)
    assert claims.holder(name) is None
    assert interest.wanted(name)


def test_a_worker_that_notes_a_job_too_late_does_not_note_the_next_one_of_its_place() -> None:
    """Its client left in between, and another job has the place: nobody has that one yet."""
    interest = Interest()
    claims = interest.claims()
    old = claims.take()
    claims.give_back(old)
    new = claims.take()
    assert interest.hold(old, 2)
    assert claims.holder(new) is None
    assert interest.hold(new, 1)
    assert claims.holder(new) == 1


def test_who_has_a_job_without_a_place_must_be_told() -> None:
    """Nothing is noted, and the caller knows it."""
    interest = Interest()
    claims = interest.claims()
    beyond = [claims.take() for _ in range(PLACES + 1)][-1]
    assert not interest.hold(beyond, 0)
    assert claims.holder(beyond) is None


def test_a_place_that_has_another_job_now_does_not_speak_for_the_one_before() -> None:
    """A message that lies in the queue for long cannot be taken for a newer one."""
    interest = Interest()
    claims = interest.claims()
    old = claims.take()
    claims.give_back(old)
    new = claims.take()
    assert old[0] == new[0]
    assert interest.wanted(new)
    assert not interest.wanted(old)
    assert not interest.begin(old)
    assert not claims.begun(new)


def test_a_job_without_a_place_is_never_dropped() -> None:
    """Where all places are taken, work is done that may be in vain, and nothing is lost."""
    interest = Interest()
    claims = interest.claims()
    names = [claims.take() for _ in range(PLACES + 2)]
    assert len(set(names)) == len(names)
    beyond = names[-1]
    claims.give_back(beyond)
    assert interest.wanted(beyond)
    assert interest.begin(beyond)
    claims.again(beyond)
    claims.give_back(names[0])
    assert not interest.wanted(names[0])
    assert interest.wanted(claims.take())


def test_the_jobs_of_a_process_that_died_are_wanted_no_more() -> None:
    """Its clients went with it; those of the other process are still there."""
    interest = Interest(2)
    dead, other = interest.claims(0), interest.claims(1)
    orphan, kept = dead.take(), other.take()
    fresh = interest.claims(0).take()
    assert not interest.wanted(orphan)
    assert interest.wanted(kept)
    assert interest.wanted(fresh)


def _begin(interest: Interest, name: Name) -> None:
    assert interest.hold(name, 7)
    assert interest.begin(name)


def test_a_worker_in_another_process_writes_into_the_same_memory() -> None:
    """As LitServe starts its workers: spawned, with the memory among the arguments."""
    interest = Interest()
    claims = interest.claims()
    name = claims.take()
    worker = multiprocessing.get_context("spawn").Process(target=_begin, args=(interest, name))
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0
    assert claims.begun(name)
    assert claims.holder(name) == 7


@given(st.lists(st.sampled_from(["take", "give back", "begin", "again"]), max_size=60))
def test_exactly_the_jobs_under_way_are_wanted(moves: list[str]) -> None:
    """Whatever happens in whatever order."""
    interest = Interest()
    claims = interest.claims()
    held: list[Name] = []
    gone: list[Name] = []
    for move in moves:
        if move == "take":
            held.append(claims.take())
        elif held and move == "give back":
            gone.append(held.pop(0))
            claims.give_back(gone[-1])
        elif held and move == "begin":
            interest.begin(held[-1])
        elif held:
            claims.again(held[-1])
    assert all(map(interest.wanted, held))
    assert not any(map(interest.wanted, gone))
