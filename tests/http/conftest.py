"""The desk that most tests of requests ask."""

from collections.abc import Iterator

import pytest

from tests.support.desk import Desk


@pytest.fixture
def desk() -> Iterator[Desk]:
    running = Desk()
    yield running
    running.close()
