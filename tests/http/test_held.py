"""What clients make a process hold: who is refused, who is cut, and that nothing stays counted."""

import itertools
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from litapi.http.held import GRACE, SLOW, SMALL, Answers, Bodies

MB = 1 << 20


class Sender:
    """A connection that remembers whether it was ended."""

    def __init__(self, bodies: Bodies, key: int) -> None:
        self._bodies, self._key = bodies, key
        self.ended = False

    def evict(self) -> None:
        self.ended = True
        self._bodies.drop(self._key)


def test_the_slowest_body_makes_room_first() -> None:
    """As many as it takes, slowest first; a body that comes fast enough is never taken from."""
    bodies = Bodies(10 * MB)
    senders = [Sender(bodies, key) for key in range(4)]
    for key, sender in enumerate(senders):
        assert bodies.add(key, 2 * MB)
        bodies.pace(sender, key, [3000.0, 1000.0, 2000.0, 2.0 * SLOW][key])
    assert bodies.add(9, 5 * MB)
    assert [sender.ended for sender in senders] == [False, True, True, False]
    assert bodies.total == 9 * MB


def test_without_a_slow_one_the_newcomer_is_refused_unless_it_is_small() -> None:
    """What is in work stays, and small requests pass; one that is the slowest itself is ended."""
    bodies = Bodies(MB)
    assert bodies.add(1, MB)
    assert not bodies.add(2, SMALL + 1)
    bodies.drop(2)
    assert bodies.add(3, SMALL)
    bodies = Bodies(MB)
    sender = Sender(bodies, 1)
    bodies.add(1, MB)
    bodies.pace(sender, 1, 10.0)
    assert bodies.add(1, 1)  # and not refused a second time
    assert (sender.ended, bodies.total) == (True, 0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3 * MB))))
def test_what_all_hold_is_the_sum_of_what_each_holds(steps: list[tuple[int, int]]) -> None:
    """Whatever is put and dropped in whatever order; in the end nothing is left."""
    bodies, sizes = Bodies(1 << 40), dict[int, int]()
    for key, size in steps:
        if size % 3:
            bodies.add(key, size)
            sizes[key] = sizes.get(key, 0) + size
        else:
            bodies.drop(key)
            sizes.pop(key, None)
        assert bodies.total == sum(sizes.values())
    for key in range(6):
        bodies.drop(key)
    assert bodies.total == 0


@dataclass(eq=False)
class Reader:
    """A connection whose client has so much left to take."""

    left: int = 0
    was_cut: bool = False

    def unsent(self) -> int:
        return self.left

    def cut(self) -> None:
        self.was_cut = True


def test_the_slowest_reader_is_cut_and_the_others_are_not() -> None:
    """Beyond the bound, after a time of grace; who has taken all holds nothing."""
    now = [0.0]
    answers = Answers(10 * MB, lambda: now[0])
    slow, steady, quick, late = readers = [Reader(left * MB) for left in (3, 2, 0, 6)]
    for reader in (slow, steady, quick):
        answers.wrote(reader, 3 * MB)
    now[0] = 2 * GRACE
    answers.wrote(late, 6 * MB)
    assert [reader.was_cut for reader in readers] == [True, False, False, False]
    assert answers.total == 8 * MB


def test_answers_of_one_moment_may_pass_the_bound_but_not_twice_of_it() -> None:
    """Nobody can have taken them yet; a single large one could not be given at all otherwise."""
    alone = Answers(MB, itertools.count(0.0, 10 * GRACE).__next__)
    reader = Reader(40 * MB)
    for _ in range(2):
        alone.wrote(reader, 20 * MB)
    assert not reader.was_cut
    answers = Answers(10 * MB, lambda: 0.0)
    readers = [Reader(6 * MB) for _ in range(5)]
    for reader in readers:
        answers.wrote(reader, 6 * MB)
    assert sum(reader.was_cut for reader in readers) == 2
