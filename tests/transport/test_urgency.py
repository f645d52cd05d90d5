"""Urgency: a worker sees its neighbours on the device, and no other."""

from litapi.transport.urgency import Urgency


def test_only_another_worker_on_the_same_device_is_seen() -> None:
    """Text and image towers share a card; one that is gone wants nothing."""
    urgency = Urgency(["cuda:0", "cuda:1", "cuda:0"])
    text, other, image = map(urgency.of, range(3))
    image.say(True)
    assert [one.elsewhere() for one in (text, other, image)] == [True, False, False]
    image.say(False)
    assert not text.elsewhere()
    image.say(True)
    urgency.clear(2)
    assert not text.elsewhere()


def test_a_worker_that_is_gone_or_has_no_bulk_holds_no_turn() -> None:
    """The longest wait goes first, one at a time."""
    urgency = Urgency(["cpu", "cpu"])
    text, image = map(urgency.of, range(2))
    assert text.turn(2.0)
    assert image.turn(1.0)
    assert not text.turn(2.0)
    image.end()
    assert text.turn(2.0)
    text.begin()
    assert not image.turn(1.0)
    urgency.clear(0)
    assert image.turn(3.0)
