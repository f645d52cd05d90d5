"""Bodies kept for judging: all while they fit, then an even part."""

import orjson
import pytest

from bench.load.answer import Judge
from bench.load.sample import Sample
from bench.load.shelf import Shelf
from tests.support.recordings import sample

HEAD = b"http/1.1 200 ok\r\n"
GOOD = orjson.dumps({"embedding": [0.6, 0.8]})


def judged(room: int, many: int, body: bytes = GOOD) -> tuple[Shelf, list[Sample]]:
    """A shelf that was offered so many bodies, judged; it never held more than its room."""
    shelf, samples = Shelf(room), [sample(i) for i in range(many)]
    for one in samples:
        shelf.put(one, HEAD, body)
        assert len(shelf) <= max(1, room // len(body))
    shelf.judge(Judge())
    return shelf, samples


def test_every_body_is_kept_while_there_is_room() -> None:
    """At low rates all are looked at, and good bodies leave their samples good."""
    shelf, samples = judged(1 << 20, 50)
    assert shelf.stride == 1
    assert all(one.checked and one.good for one in samples)


@pytest.mark.parametrize("room", [1, 2, 5, 13, 40])
def test_a_full_shelf_keeps_an_even_part(room: int) -> None:
    """Every n-th from first to last, not only the first ones."""
    shelf, samples = judged(room * len(GOOD), 500)
    kept = [one.number for one in samples if one.checked]
    assert shelf.stride > 1
    assert kept == list(range(0, 500, shelf.stride))
    assert len(shelf) == len(kept)
