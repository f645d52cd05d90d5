"""The comparison of two commits' interfaces: facts are found, and a missing one is named."""

import pytest

from bench.interface import facts, lost
from bench.rig.server_process import ROOT


def test_what_is_missing_is_named() -> None:
    """And how many there were of each kind."""
    assert lost({"option a", "option b"}, {"option b", "route c"}) == [
        "option: 2 before, 1 now",
        "route: 0 before, 1 now",
        "missing  option a",
    ]


@pytest.mark.timeout(300)
def test_this_tree_has_facts_of_every_kind() -> None:
    """Of its code, its commands and a running server."""
    found = facts(ROOT)
    assert {
        "name cache.VectorCache", "option litapi serve --redis-url", "default port 8080",
        "variable SIGLIT_REDIS_URL", "variable REDIS_URL", "error body_too_large 413",
        "route POST /embed_text", "header POST /embed_text 200 x-cache",
        "metric siglit_requests_total route,status", "status POST /embed_text 200",
        "field POST /v1/embeddings 200 data.embedding",
    } <= found, sorted(found)  # fmt: skip
