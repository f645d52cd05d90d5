"""Whole answers kept: the same request again gets the same answer, and no other request does."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.rig.server_process import ServerProcess
from litapi.http.answer import JSON, Answer
from litapi.http.replay import EXTRA, LARGEST_BODY, SHARE, Replay
from litapi.http.request import Incoming
from tests.support.recorder import Recorder
from tests.support.wire import arrive

PATH = "/v1/embeddings"
MB = 1 << 20


def incoming(body: bytes, path: str = PATH, query: bytes = b"", **headers: str) -> Incoming:
    """A whole request."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return arrive(
        body, {"content-length": str(len(body)), **named}, path=path, query=query, limit=MB
    )


def asked(replay: Replay, *requests: Incoming, hits: int = 1, status: int = 200) -> list[bool]:
    """For each request, one after another, whether the route itself was asked."""
    calls = 0

    async def route(request: Incoming) -> Answer:
        nonlocal calls
        calls += 1
        return Answer(await request.body(), status, [JSON, (b"x-cache", b"hit-l1")], hits)

    async def one(request: Incoming) -> bool:
        before = calls
        answer = await over(request)
        assert answer.body == await request.body()
        return calls > before

    over = replay.over(route)
    return [asyncio.run(one(request)) for request in requests]


@pytest.mark.parametrize(
    "other",
    [
        incoming(b"b"),
        incoming(b"a", path="/embed_text"),
        incoming(b"a", accept="application/octet-stream"),
        incoming(b"a", content_type="image/png"),
    ],
    ids=["body", "path", "accept", "content type"],
)
def test_whatever_an_answer_depends_on_makes_another_request(other: Incoming) -> None:
    """A difference in the body, the path, Accept or the content type is a difference."""
    assert asked(Replay(MB), incoming(b"a"), other) == [True, True]


@pytest.mark.parametrize(
    "request_of",
    [
        lambda: incoming(b"a", cache_control="no-cache"),
        lambda: incoming(b"a", query=b"dimensions=2"),
        lambda: incoming(b"a", content_length=""),
        lambda: incoming(bytes(LARGEST_BODY + 1)),
        lambda: incoming(b"a", content_type="multipart/form-data; boundary=a"),
        lambda: incoming(b"a", content_type="Multipart/Form-Data; boundary=a"),
    ],
    ids=["cache-control", "query", "chunked", "large", "multipart", "multipart in capitals"],
)
def test_some_requests_always_reach_their_route(request_of: Any) -> None:
    """Cache-Control, a query, a chunked, large or multipart body are not for this tier."""
    replay = Replay(100 * MB)
    assert asked(replay, request_of(), request_of()) == [True, True]
    assert len(replay.kept) == 0


def test_an_answer_that_was_computed_or_refused_is_not_kept() -> None:
    """Only an answer made wholly of vectors from memory says how many they were."""
    replay = Replay(MB)
    assert asked(replay, incoming(b"a"), incoming(b"a"), hits=0) == [True, True]
    assert asked(replay, incoming(b"a"), incoming(b"a"), hits=0, status=400) == [True, True]
    assert len(replay.kept) == 0


def test_hits_are_counted_by_vector_and_by_answer() -> None:
    """A kept answer of seven vectors is seven hits in memory and one among the answers."""
    watcher = Recorder()
    asked(Replay(MB, watcher), incoming(b"a"), incoming(b"a"), incoming(b"a"), hits=7)
    assert watcher.results == {("answer", "hit"): 2, ("l1", "hit"): 14}


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3000)), max_size=60))
def test_bytes_never_exceed_the_limit(requests: list[tuple[int, int]]) -> None:
    """Whatever comes in whatever order, what is held is what is counted, and within the limit."""
    limit, watcher = 24_000, Recorder()
    replay = Replay(limit, watcher)
    asked(replay, *(incoming(b"%d " % number + bytes(size)) for number, size in requests))
    assert replay.bytes <= limit
    assert watcher.held.get("answer", 0) == replay.bytes
    held = [name for name in replay.kept if name[0] == PATH]
    assert replay.bytes == sum(len(PATH) + 2 * len(body) + EXTRA for *_, body in held)


def test_the_longest_unasked_answer_leaves_first() -> None:
    """Room is made by recency of use."""
    size = len(PATH) + 2 + EXTRA
    replay = Replay(SHARE * size)
    names = [b"%c" % (65 + n) for n in range(SHARE + 1)]
    first = [*names[:SHARE], names[0], names[SHARE]]  # A is asked again, then one too many comes
    assert asked(replay, *map(incoming, first))[-2:] == [False, True]
    assert asked(replay, incoming(names[0]), incoming(names[1])) == [False, True]


@pytest.fixture(scope="module")
def served() -> Iterator[httpx.Client]:
    """A client of a server of this file's own, so that its counters move for nobody else."""
    flags = ("--http-workers", "1", "--redis-private", "off", "--api-keys", "k")
    with (
        ServerProcess(*flags) as running,
        httpx.Client(base_url=running.url, headers={"x-api-key": "k"}, timeout=60) as client,
    ):
        yield client


def _answers(client: httpx.Client) -> int:
    text = client.get("/metrics").text
    found = re.search(r'cache_requests_total\{result="hit",tier="answer"\} (\S+)', text)
    return int(float(found[1])) if found else 0


def test_a_client_cannot_tell_a_kept_answer_from_a_fresh_one(served: httpx.Client) -> None:
    """Third and second answer are alike in body and headers, but for id and timing."""
    body = {"input": ["a red circle", "two blue squares"], "dimensions": 8}
    before = _answers(served)
    computed, looked_up, kept = (served.post(PATH, json=body) for _ in range(3))
    assert _answers(served) == before + 1
    assert computed.headers["x-cache"] == "miss,miss"
    assert kept.content == looked_up.content == computed.content
    varying = {"x-request-id", "server-timing"}
    facts = [{k: v for k, v in a.headers.items() if k not in varying} for a in (looked_up, kept)]
    assert facts[0] == facts[1]
    assert facts[1]["x-cache"] == "hit-l1,hit-l1"
    assert kept.headers["x-request-id"] != looked_up.headers["x-request-id"]
    assert re.fullmatch(r"cache;dur=\d+\.\d{3}, queue;.*", kept.headers["server-timing"])


def test_a_kept_answer_passes_by_neither_no_cache_nor_the_key(served: httpx.Client) -> None:
    """A client that wants a fresh vector gets one, and one without a key gets nothing."""
    body = {"input": "a yellow triangle"}
    for _ in range(3):
        served.post(PATH, json=body).raise_for_status()
    fresh = served.post(PATH, json=body, headers={"cache-control": "no-cache"})
    assert fresh.headers["x-cache"] == "bypass"
    assert served.post(PATH, json=body).headers["x-cache"] == "hit-l1"
    assert served.post(PATH, json=body, headers={"x-api-key": "other"}).status_code == 401
