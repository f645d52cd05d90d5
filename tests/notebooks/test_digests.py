"""What asking by digest saves, on a real server."""

from bench.rig.server_process import ServerProcess
from notebooks.figures.digests import digest_against_bytes, noise, reindexed


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
