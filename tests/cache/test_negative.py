from __future__ import annotations

import pytest

from cache.negative import NegativeTier


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_bad_content_is_remembered_by_its_code() -> None:
    """The second time, the same bytes are refused without being decoded."""
    tier = NegativeTier()
    tier.put(b"digest", "image_too_large")
    assert tier.get(b"digest") == "image_too_large"
    assert tier.get(b"another") is None


def test_it_forgets_after_a_minute() -> None:
    """A change of limits or decoder takes hold without a restart of every client."""
    clock = Clock()
    tier = NegativeTier(clock=clock)
    tier.put(b"digest", "code")
    clock.now += 59.9
    assert tier.get(b"digest") == "code"
    clock.now += 0.2
    assert tier.get(b"digest") is None
    assert len(tier) == 0


def test_looking_does_not_prolong_it_and_earning_it_again_does() -> None:
    """The minute counts from the last time that the content was really tried."""
    clock = Clock()
    tier = NegativeTier(clock=clock)
    tier.put(b"digest", "first")
    clock.now += 40
    tier.get(b"digest")
    tier.put(b"digest", "second")
    clock.now += 40
    assert tier.get(b"digest") == "second"
    clock.now += 40
    assert tier.get(b"digest") is None


def test_it_holds_1024_and_the_oldest_leaves() -> None:
    """A flood of bad images costs a bounded amount of memory."""
    tier = NegativeTier()
    for i in range(1025):
        tier.put(b"%d" % i, "code")
    assert len(tier) == 1024
    assert tier.get(b"0") is None
    assert tier.get(b"1") == tier.get(b"1024") == "code"


def test_a_code_that_was_earned_again_is_young_again() -> None:
    """What leaves is what was tried longest ago."""
    tier = NegativeTier(limit=2)
    tier.put(b"a", "code")
    tier.put(b"b", "code")
    tier.put(b"a", "code")
    tier.put(b"c", "code")
    assert tier.get(b"a") == "code"
    assert tier.get(b"b") is None


def test_an_empty_code_is_refused() -> None:
    """It could not be told from content that is not known."""
    with pytest.raises(ValueError, match="empty"):
        NegativeTier().put(b"digest", "")
