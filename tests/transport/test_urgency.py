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
