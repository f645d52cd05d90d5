"""Vectors from a running server."""

import pytest

from bench.rig.server_process import ServerProcess
from litapi.checkpoint import DEMO_NAME
from litapi.quality.golden import Golden, Shape, encoded
from litapi.quality.source import Source, SourceError

DISC = encoded(Shape(64, 64))


def test_a_server_of_ours_holds_its_published_numbers() -> None:
    """Over HTTP the demo passes, with the scale and bias that `/info` says."""
    with ServerProcess("--api-keys", "secret") as server:
        source = Source.remote(server.url, "secret")
        assert source.name == DEMO_NAME
        assert "float32" in source.about
        assert source.texts([f"text {n}" for n in range(70)]).shape == (70, 96)
        (verdict,) = Golden.of(source.name).verdicts(source)
        assert verdict.passed, verdict.sentence
        with pytest.raises(SourceError, match="401"):
            Source.remote(server.url)


def test_a_server_that_is_not_there_is_said_in_one_line() -> None:
    """The address stands in the sentence, and no traceback."""
    with pytest.raises(SourceError, match="9/v1/models"):
        Source.remote("http://127.0.0.1:9")
