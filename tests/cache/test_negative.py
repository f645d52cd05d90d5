from cache.negative import NegativeTier


class First(Exception):
    """One thing that can be wrong with content."""


class Second(Exception):
    """Another."""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_it_forgets_a_minute_after_the_last_trial() -> None:
    """A change of limits takes hold; what is earned again counts from then."""
    clock = Clock()
    tier = NegativeTier(clock=clock)
    tier.put(b"digest", First)
    clock.now += 59.9
    tier.put(b"digest", Second)
    clock.now += 59.9
    assert isinstance(tier.get(b"digest"), Second)
    clock.now += 0.2
    assert tier.get(b"digest") is None
    assert len(tier) == 0


def test_it_holds_1024() -> None:
    """A flood of bad images costs a bounded amount of memory."""
    tier = NegativeTier()
    for i in range(1025):
        tier.put(b"%d" % i, First)
    assert len(tier) == 1024


def test_an_error_that_was_earned_again_is_young_again() -> None:
    """What leaves is what was tried longest ago."""
    tier = NegativeTier(limit=2)
    tier.put(b"a", First)
    tier.put(b"b", First)
    tier.put(b"a", First)
    tier.put(b"c", First)
    assert isinstance(tier.get(b"a"), First)
    assert tier.get(b"b") is None
