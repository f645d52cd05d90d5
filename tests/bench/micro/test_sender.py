"""Both ways to send: what goes over the wire, and that a failure is one."""

import itertools
import shutil
from collections.abc import Callable

import orjson
import pytest

from bench.micro.hello import greeting
from bench.micro.sender import Own, Request, Sender, SendError, Wrk, sender
from tests.support.echo_server import Behaviour, EchoServer

BODIES = tuple(orjson.dumps({"input": [f"text {n}"]}) for n in range(3))
needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
WAYS = [pytest.param(Wrk, marks=needs_wrk), Own]


@pytest.mark.parametrize("way", WAYS)
def test_bodies_are_sent_in_turn(way: Callable[[int], Sender]) -> None:
    """All of them, and answers are counted."""
    with EchoServer() as server:
        sent = way(1).send(server.url, Request("/v1/embeddings", BODIES, "text/x"), 1.0)
        first = int(server.items[0].removeprefix("text "))  # wrk tries its script out once
        turns = [f"text {(first + n) % len(BODIES)}" for n in range(4)]
        assert server.items[:4] == turns
        assert "accept: text/x" in server.heads[0].lower()
    assert sent.requests > 0
    assert 0.9 < sent.seconds < 5


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_that_is_no_success_ends_the_run(way: Callable[[int], Sender]) -> None:
    """Its cost would be that of something else."""
    with (
        EchoServer(lambda n: Behaviour(status=503 if n == 3 else 200)) as server,
        pytest.raises(SendError),
    ):
        way(2).send(server.url, Request("/v1/embeddings", BODIES), 1.0)


@pytest.mark.parametrize("way", WAYS)
def test_without_bodies_it_is_a_get(way: Callable[[int], Sender]) -> None:
    """As the hello server is asked; it answers to both."""
    with greeting() as (url, _):
        assert way(2).send(url, Request("/"), 1.0).requests > 0
        assert way(2).send(url, Request("/", BODIES), 1.0).requests > 0


def test_nobody_there_is_a_failure() -> None:
    """Not a count of nothing."""
    with pytest.raises(SendError):
        Own(1).send("http://127.0.0.1:9", Request("/"), 0.1)


def test_a_raw_request_states_its_length() -> None:
    """And the bodies come again from the start."""
    request = Request("/embed", (b"{}", b"[1]"), "*/*")
    first, second, third = itertools.islice(request.raw("h:1"), 3)
    assert first.endswith(b"Content-Length: 2\r\n\r\n{}")
    assert second.endswith(b"Content-Length: 3\r\n\r\n[1]")
    assert third == first


def test_wrk_is_taken_where_it_is_installed() -> None:
    """It leaves the server no pause."""
    assert sender(4).name == ("wrk" if shutil.which("wrk") else "bench.load.connection")
