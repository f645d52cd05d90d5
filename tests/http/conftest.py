"""The desks that most tests of requests ask."""

from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tests.support.desk import Desk, Desks


@pytest.fixture
def desks() -> Iterator[Desks]:
    """Makes desks of other options than the defaults."""
    with ExitStack() as stack:
        yield lambda *given, **options: stack.enter_context(closing(Desk(*given, **options)))


@pytest.fixture
def desk(desks: Desks) -> Desk:
    return desks()
