"""What goes over the wire, and that a failure is one."""

import orjson
import pytest

from bench.micro.sender import Request, SendError, greeting, send
from tests.support.echo_server import Behaviour, EchoServer

BODIES = tuple(orjson.dumps({"input": [f"text {n}"]}) for n in range(3))


def test_bodies_are_sent_in_turn() -> None:
    """All of them, and answers are counted."""
    with EchoServer() as server:
        requests, seconds = send(server.url, Request("/v1/embeddings", BODIES, "text/x"), 0.5, 1)
        assert server.items == [f"text {n % len(BODIES)}" for n in range(requests)]
        assert "accept: text/x" in server.heads[0]
    assert requests > 0
    assert seconds >= 0.5


def test_an_answer_that_is_no_success_ends_the_run() -> None:
    """Its cost would be that of something else; so does nobody there."""
    request = Request("/v1/embeddings", BODIES)
    with (
        EchoServer(lambda n: Behaviour(status=503 if n == 3 else 200)) as server,
        pytest.raises(SendError, match="503"),
    ):
        send(server.url, request, 30.0, 2)
    with pytest.raises(SendError):
        send("http://127.0.0.1:9", request, 0.1, 1)


def test_without_bodies_it_is_a_get() -> None:
    """As the hello server is asked; it answers to both."""
    with greeting() as (url, _):
        for request in (Request("/"), Request("/", BODIES)):
            assert send(url, request, 0.2, 2)[0] > 0
