"""Fixtures that several files share: one real server for the whole run, and drawn pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator
from random import Random

import httpx
import pytest

from bench.rig.server_process import ServerProcess
from litapi.demo.drawing import Scene, draw


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """A server with the demo checkpoint and all defaults, for tests that leave it as it was."""
    with ServerProcess() as running:
        yield running


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    """A client of the shared server."""
    with httpx.Client(base_url=server.url, timeout=60) as http:
        yield http


def picture(number: int, form: str = "PNG") -> bytes:
    """An encoded drawn picture; each number is a picture of its own."""
    buffer = io.BytesIO()
    draw(Scene.random(Random(number)), seed=number).save(buffer, form)
    return buffer.getvalue()
