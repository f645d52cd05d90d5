from collections.abc import Iterator

import pytest

from bench.rig.redis_server import RedisServer


@pytest.fixture(scope="session")
def _shared_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def server(_shared_server: RedisServer) -> RedisServer:
    """A healthy, empty Redis; a test that hurts its server starts one of its own."""
    with _shared_server.client() as client:
        client.flushall()
        client.config_resetstat()
    return _shared_server
