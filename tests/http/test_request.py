"""One HTTP request: headers, query, and a body that is read only as far as the limit."""

import asyncio
import tracemalloc
from collections.abc import MutableMapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from litapi.errors import BodyTooLarge, RequestInvalid
from litapi.http.request import ClientGone, Incoming
from tests.support.patience import settled
from tests.support.wire import LIMIT, Wire, arrive, body_of

pytestmark = pytest.mark.anyio


async def test_a_client_is_gone_when_it_hangs_up_after_its_request_and_not_before() -> None:
    """Whoever computes for it may stop; pieces without bytes before that mean nothing."""
    incoming, patient = arrive(Wire([b"body", b""], gone_after=2)), arrive(b"body")
    assert await incoming.body() == await patient.body() == b"body"
    waiting = asyncio.ensure_future(patient.gone())
    assert await asyncio.wait_for(incoming.gone(), 60) is ClientGone
    await settled()
    assert not waiting.done()
    waiting.cancel()


async def test_work_for_a_client_that_waits_ends_as_it_does_alone() -> None:
    """Its result and its errors are the caller's, and the listening ends with it."""

    async def right() -> int:
        return 7

    async def wrong() -> int:
        raise KeyError("of its own")

    incoming, before = arrive(b"body"), asyncio.all_tasks()
    await incoming.body()
    assert await incoming.unless_gone(right()) == 7
    with pytest.raises(KeyError, match="of its own"):
        await incoming.unless_gone(wrong())
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=8), st.integers(0, 100))
def test_a_body_is_refused_exactly_beyond_the_limit(pieces: list[bytes], limit: int) -> None:
    """Wherever it is cut, the limit is allowed and a byte more is not, announced or not."""
    incoming = arrive(Wire(pieces), limit=limit)
    if sum(map(len, pieces)) <= limit:
        assert body_of(incoming) == b"".join(pieces)
        assert incoming.whole
    else:
        with pytest.raises(BodyTooLarge):
            body_of(incoming)


@pytest.mark.parametrize(
    ("announced", "pieces", "taken"), [("26", 1, 0), ("", 100, 3), ("1", 100, 3)]
)
def test_no_more_is_read_than_it_takes_to_refuse(announced: str, pieces: int, taken: int) -> None:
    """An announced excess is not read at all; an endless body costs the limit and one piece."""
    wire = Wire([b"x" * 10] * pieces)
    with pytest.raises(BodyTooLarge):
        body_of(arrive(wire, {"content-length": announced}, limit=25))
    assert wire.taken == taken


@given(st.text(st.characters(max_codepoint=255), max_size=12))
@example("-1")
@example("²")
@example("1e3")
@example("9" * 4301)  # more digits than int() takes
def test_any_content_length_reads_or_refuses(announced: str) -> None:
    """A header that is not a length is the HTTP parser's business, and never an internal error."""
    try:
        assert body_of(arrive(b"body", {"content-length": announced})) == b"body"
    except BodyTooLarge:
        assert int(announced[:20]) > LIMIT


def test_a_body_that_was_read_is_not_waited_for_again() -> None:
    """The second reader gets the same bytes; of one piece they are that piece, not a copy.

    The only message may have no body in it, and half a body is none.
    """
    piece = b"x" * 1000
    incoming = arrive(piece)
    assert body_of(incoming) is body_of(incoming) is piece

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request"}

    assert body_of(Incoming({"method": "GET", "path": "/", "headers": []}, receive, 0)) == b""
    cut = arrive(Wire([b"half", b"rest"], gone_after=1))
    with pytest.raises(ClientGone):
        body_of(cut)
    assert not cut.whole


@given(st.text(st.characters(max_codepoint=255), max_size=20))
def test_any_bytes_in_a_header_can_be_read(text: str) -> None:
    """They have no encoding that could be wrong; one that is not there is empty."""
    assert arrive(headers={"X-Y": text}).header(b"x-y") == text
    assert arrive(headers={"X-Y": text}).header(b"x-other") == ""


@given(st.binary(max_size=40))
@example(b"\xff=1")
@example(b"a=%ff&%zz;&&==")
def test_any_query_is_read_or_refused(query: bytes) -> None:
    """No query string ends in an internal error."""
    try:
        assert all(isinstance(value, str) for value in arrive(query=query).query.values())
    except RequestInvalid:
        assert not query.isascii()
    without = arrive()
    del without.scope["query_string"]
    assert without.query == {}


def test_a_body_in_many_pieces_is_not_held_twice() -> None:
    """What the pieces are put into is the body, and not another copy of it."""

    async def run() -> int:
        incoming = arrive(Wire([bytes(1 << 16)] * 512), limit=64 << 20)
        tracemalloc.start()
        assert len(await incoming.body()) == 32 << 20
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert asyncio.run(run()) < 48 << 20


def test_work_for_a_client_that_hangs_up_is_cancelled() -> None:
    """What nobody waits for is not worth its cost."""
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def run() -> None:
        incoming = arrive(Wire([b"body"], gone_after=1))
        await incoming.body()
        with pytest.raises(ClientGone):
            await asyncio.wait_for(incoming.unless_gone(work()), 60)
        await asyncio.sleep(0)

    asyncio.run(run())
    assert ended == ["cancelled"]


@pytest.mark.parametrize(
    ("header", "media_type"),
    [
        ("application/json", "application/json"),
        ("Application/JSON; charset=utf-8", "application/json"),
        (" image/png ", "image/png"),
        ("multipart/form-data; boundary=a;b", "multipart/form-data"),
        ("", ""),
        (";", ""),
    ],
)
def test_the_media_type_stands_without_its_parameters(header: str, media_type: str) -> None:
    """Routes compare it with names in lower case; `curl` without -H is welcome."""
    assert arrive(headers={"content-type": header}).media_type == media_type
    assert arrive().media_type == ""


@pytest.mark.parametrize(
    ("query", "read"),
    [
        (b"a=a%2Fb&b=4&b=8&x=a+b", {"a": "a/b", "b": "8", "x": "a b"}),
        (b"dimensions=", {"dimensions": ""}),
        (b"dimensions", {"dimensions": ""}),
        (b"", {}),
        (None, {}),
    ],
)
def test_the_query_is_decoded_and_its_last_value_wins(
    query: bytes | None, read: dict[str, str]
) -> None:
    """As most servers read it; no name is dropped, so that a misspelt one is heard of."""
    incoming = arrive(query=query or b"")
    if query is None:
        del incoming.scope["query_string"]
    assert incoming.query == read


@pytest.mark.parametrize(
    ("path", "route"), [("/info/", "/info"), ("/", "/"), ("/info//", "/info/"), ("//", "/")]
)
def test_a_slash_at_the_end_is_no_other_route(path: str, route: str) -> None:
    """One slash; the root is what it is."""
    assert arrive(path=path).path == route
