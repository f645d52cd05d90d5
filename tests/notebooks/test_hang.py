"""Load while Redis stands still."""

from notebooks.figures.hang import Hang
from tests.support.recordings import refused, sample

# twenty requests, one each tenth of a second; Redis stood still from 0.5 to 1.5 s
SAMPLES = [
    sample(n, 0.01, cache={"miss" if 5 <= n < 15 else "hit-l2": 1}) for n in range(20)
]  # fmt: skip
MADE = Hang(SAMPLES, start=0.49, end=1.49)


def test_only_what_was_sent_and_answered_meanwhile_counts() -> None:
    """An answer may have been on its way, so neither end counts."""
    assert {next(iter(one.cache)) for one in MADE.during()} == {"miss"}
    assert len(MADE.during()) == 9


def test_the_chart_shows_every_request_by_where_its_vector_came_from() -> None:
    """And shades the time for which Redis stood still."""
    axes = Hang([*SAMPLES, refused(20, 500)], 0.49, 1.49).chart().axes[0]
    assert axes.get_legend_handles_labels()[1] == ["hit-l2", "miss", "status 500"]
    assert [text.get_text() for text in axes.texts] == ["Redis stopped"]
    assert "(ms)" in axes.get_ylabel()


def test_a_stopped_redis_costs_hits_and_no_answer() -> None:
    """On a real server, whose every look-up goes to a real Redis that is stopped for a while."""
    hang = Hang.play(rate=20, before=0.7, lasting=1.0, after=0.7)
    assert not [one for one in hang.samples if one.failed]
    before = [one for one in hang.samples if one.done < hang.start]
    assert any("hit-l2" in one.cache for one in before)
    assert not any("hit-l2" in one.cache for one in hang.during())
