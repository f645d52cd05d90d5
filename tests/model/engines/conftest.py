"""What the tests of engines share."""

import pytest

from litapi.checkpoint import DEMO, Checkpoint
from tests.support.checkpoint import CheckpointMaker


@pytest.fixture(scope="module", params=["demo", "fixed"])
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    """The demo, which is NaFlex, and one of a fixed resolution."""
    if request.param == "demo":
        return Checkpoint.open(DEMO)
    folder = tmp_path_factory.mktemp("fixed") / "fixed"
    return Checkpoint.open(CheckpointMaker.named("tiny-fixed").write(folder))
