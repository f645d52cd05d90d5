"""What a cache saves: bytes of its vectors, hits of popular streams, bytes that are not sent."""

from collections import Counter

import pytest

from bench.rig.server_process import ServerProcess
from notebooks.figures.digests import digest_against_bytes, noise, reindexed
from notebooks.figures.footprint import in_memory, in_redis
from notebooks.figures.zipf import hit_ratio, stream


def test_a_hit_by_digest_sends_less(server: ServerProcess) -> None:
    """The same few bytes for every picture."""
    small, large = (digest_against_bytes(server, noise(side), 3) for side in (32, 224))
    assert small.sent_digest == large.sent_digest < 400
    assert large.sent_bytes == large.size > 150_000
    assert min(large.cpu_bytes, large.cpu_digest) > 0


def test_a_folder_that_is_known_is_not_sent_again(server: ServerProcess) -> None:
    """All of it without digests, the new tenth with them."""
    with_digests, without = (reindexed(server.url, 20, digests) for digests in (True, False))
    assert with_digests.megabytes < 0.15 * without.megabytes


def test_an_entry_weighs_its_numbers_and_a_little_more() -> None:
    """In both tiers: a key, a header, and what the tier spends on its place."""
    for weigh in (in_memory, lambda dim: in_redis(dim, 1000)):
        small, large = weigh(96), weigh(768)
        assert 4 * 96 < small < 4 * 96 + 700
        assert large - small == pytest.approx(4 * (768 - 96), rel=0.3)


def test_a_stream_is_as_unequal_as_asked() -> None:
    """With s = 1 the first is asked for twice as often as the second; with s = 0 all alike."""
    counts = Counter(stream(1.0, 100, 40_000))
    assert counts[0] / counts[1] == pytest.approx(2, rel=0.1)
    even = Counter(stream(0.0, 10, 40_000))
    assert min(even.values()) / max(even.values()) > 0.9


def test_more_room_and_more_popularity_bring_more_hits() -> None:
    """Where all are equal the hits are the room. Room for all misses nothing that came before; no
    room is no hit."""
    assert hit_ratio(0.0, 0.5, universe=200, draws=20_000) == pytest.approx(0.5, abs=0.03)
    assert hit_ratio(1.0, 0.0, universe=50, draws=1000) == 0.0
    narrow, wide = (hit_ratio(1.0, room, universe=500, draws=10_000) for room in (0.05, 0.5))
    assert narrow < wide
    assert hit_ratio(1.2, 0.05, universe=500, draws=10_000) > narrow
    assert hit_ratio(0.5, 1.0, universe=50, draws=10_000) == 1.0
