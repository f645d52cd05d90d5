"""Hit ratios of popular streams."""

from collections import Counter

import pytest

from notebooks.figures.zipf import hit_ratio, stream


def test_a_stream_is_as_unequal_as_asked() -> None:
    """With s = 1 the first is asked for twice as often as the second; with s = 0 all alike."""
    counts = Counter(stream(1.0, 100, 40_000))
    assert counts[0] / counts[1] == pytest.approx(2, rel=0.1)
    even = Counter(stream(0.0, 10, 40_000))
    assert min(even.values()) / max(even.values()) > 0.9


def test_where_all_are_equal_the_hits_are_the_room() -> None:
    """Half of the items kept answers half of the look-ups."""
    assert hit_ratio(0.0, 0.5, universe=200, draws=20_000) == pytest.approx(0.5, abs=0.03)


def test_more_room_and_more_popularity_bring_more_hits() -> None:
    """And room for all of them misses nothing that came before; no room is no hit."""
    assert hit_ratio(1.0, 0.0, universe=50, draws=1000) == 0.0
    narrow, wide = (hit_ratio(1.0, room, universe=500, draws=10_000) for room in (0.05, 0.5))
    assert narrow < wide
    assert hit_ratio(1.2, 0.05, universe=500, draws=10_000) > narrow
    assert hit_ratio(0.5, 1.0, universe=50, draws=10_000) == 1.0
