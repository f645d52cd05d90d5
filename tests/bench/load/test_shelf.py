"""Bodies kept for judging: all while they fit, then an even part."""

import orjson
import pytest

from bench.load.answer import Judge
from bench.load.sample import Sample
from bench.load.shelf import Shelf
from tests.support.recordings import sample

HEAD = b"http/1.1 200 ok\r\n"
GOOD = orjson.dumps({"embedding": [0.6, 0.8]})
BAD = orjson.dumps({"embedding": [0.6, 0.9]})


def filled(room: int, many: int, body: bytes = GOOD) -> tuple[Shelf, list[Sample]]:
    """A shelf that was offered so many bodies."""
    shelf, samples = Shelf(room), [sample(i) for i in range(many)]
    for one in samples:
        shelf.put(one, HEAD, body)
    return shelf, samples


def test_every_body_is_kept_while_there_is_room() -> None:
    """At low rates all are looked at."""
    shelf, samples = filled(1 << 20, 50)
    shelf.judge(Judge())
    assert shelf.stride == 1
    assert all(one.checked for one in samples)


@pytest.mark.parametrize("room", [1, 2, 5, 13])
def test_a_full_shelf_keeps_an_even_part(room: int) -> None:
    """Every n-th from first to last, not only the first ones."""
    shelf, samples = filled(room * len(GOOD), 100)
    shelf.judge(Judge())
    kept = [one.number for one in samples if one.checked]
    assert shelf.stride > 1
    assert kept == list(range(0, 100, shelf.stride))
    assert len(shelf) == len(kept)


@pytest.mark.parametrize("room", [2, 5, 40])
def test_a_shelf_never_holds_more_than_its_room(room: int) -> None:
    """However long the level lasts."""
    shelf = Shelf(room * len(GOOD))
    for number in range(500):
        shelf.put(sample(number), HEAD, GOOD)
        assert len(shelf) <= room


def test_a_body_larger_than_the_room_is_still_judged() -> None:
    """The first is always looked at."""
    shelf, samples = filled(1, 10)
    shelf.judge(Judge())
    assert samples[0].checked


def test_what_is_wrong_is_noted_in_the_sample() -> None:
    """There it counts as an error."""
    shelf, samples = filled(1 << 20, 2, BAD)
    shelf.judge(Judge())
    assert [one.error for one in samples] == ["not-unit"] * 2
    assert all(one.failed and not one.good for one in samples)


def test_good_bodies_leave_their_samples_good() -> None:
    """Nothing else is changed."""
    shelf, samples = filled(1 << 20, 2)
    shelf.judge(Judge())
    assert all(one.good for one in samples)
