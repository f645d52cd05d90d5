"""Bytes of a cached vector."""

import pytest

from notebooks.figures.footprint import in_memory, in_redis


def test_an_entry_weighs_its_numbers_and_a_little_more() -> None:
    """In both tiers: a key, a header, and what the tier spends on its place."""
    for weigh in (in_memory, lambda dim: in_redis(dim, 1000)):
        small, large = weigh(96), weigh(768)
        assert 4 * 96 < small < 4 * 96 + 700
        assert large - small == pytest.approx(4 * (768 - 96), rel=0.3)
