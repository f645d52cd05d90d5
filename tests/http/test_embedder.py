"""Items → vectors: each tower is sent exactly what nobody knew, and every answer is right."""

import asyncio
import contextlib
import re
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import NegativeTier, State
from cache.key import ASIDE
from litapi.errors import (
    DeadlineExceeded,
    ImageEmpty,
    ItemInternal,
    Overloaded,
    TextEmpty,
)
from litapi.http.embedder import Embedder, Query
from litapi.messages import KINDS, Item, Job, Kind, Reply
from litapi.transport.client import Asker
from tests.support.desk import DEMO, Desk, Desks, vector_of
from tests.support.patience import settled, until

TIMEOUT = 30.0
FRESH = Query(read=False)  # Cache-Control: no-cache
TRACELESS = Query(read=False, write=False)  # Cache-Control: no-store


def text(payload: str) -> Item:
    return Item("text", payload)


def image(payload: bytes) -> Item:
    return Item("image", payload)


@pytest.mark.parametrize(("begun", "state"), [(False, "miss"), (True, "hit-l1")])
def test_what_waits_when_its_client_leaves_is_taken_back_and_what_was_begun_is_kept(
    desk: Desk, begun: bool, state: str
) -> None:
    """From both towers alike: however impatient a client is, it gets its vector in the end."""
    items, cancelled, left = [text("a"), image(b"b"), text("c")], list[Any](), asyncio.Event()
    towers = desk.towers

    async def submit(kind: Kind, job: Job, asker: Asker) -> Reply:
        try:
            return await towers.submit(kind, job)
        except asyncio.CancelledError:
            cancelled.extend(job.items)
            raise

    async def gone() -> type[Exception]:
        await left.wait()
        return ConnectionResetError

    async def leave() -> None:
        """Once the towers have the items; then the towers may answer."""
        towers.gate = asyncio.Event()
        embedder = Embedder(
            desk.service.fingerprints(), desk.cache, submit, TIMEOUT, lambda _: begun
        )
        query = Query(leaving=lambda: asyncio.ensure_future(gone()))
        asking = asyncio.create_task(embedder.embed(items, query))
        await until(lambda: len(towers.jobs) == 2)
        left.set()
        with pytest.raises(ConnectionResetError):
            await asking
        await settled()
        towers.gate.set()
        await settled()

    desk.runner.run(leave())
    assert len(cancelled) == (0 if begun else 3)
    again = desk.embed(*items)
    assert states(again) == [state] * 3
    assert right(again, items)


def states(outcome: Query) -> list[str]:
    return [state.value for state in outcome.found.states]


def right(outcome: Query, items: Sequence[Item], patches: int = 0) -> bool:
    """Whether each item got its own vector."""
    expected = [vector_of(item.kind, item.payload, patches) for item in items]
    return [getattr(value, "vector", None) for value in outcome.found.values] == expected


payloads = st.sampled_from([text(t) for t in "abcd"] + [image(i) for i in (b"w", b"x", b"y", b"z")])


@given(st.lists(st.lists(payloads, max_size=6), max_size=4))
def test_the_towers_are_sent_exactly_what_was_never_seen(requests: list[list[Item]]) -> None:
    """Over any run of requests: at most one job a kind, unknown items once, all answers right."""
    seen: set[Item] = set()
    with contextlib.closing(Desk()) as desk:
        for items in requests:
            outcome = desk.embed(*items)
            fresh = [item for item in dict.fromkeys(items) if item not in seen]
            wanted = {k: [i.payload for i in fresh if i.kind == k] for k in KINDS}
            sent = desk.towers.take()
            assert len(sent) == len(dict(sent))
            assert dict(sent) == {kind: some for kind, some in wanted.items() if some}
            assert right(outcome, items)
            seen.update(items)


@pytest.mark.parametrize(
    "items",
    [
        [text(one) for one in ("a red circle", "a  red circle", " a red circle", "a red circlé")],
        *(
            [image(bytes(size) + end) for end in (b"a", b"b", b"c")]
            for size in (64 << 10, ASIDE - 1, ASIDE, 2 * ASIDE)
        ),
        [text("abc"), image(b"abc")],
    ],
    ids=["spelling", "64 KB", "short of a thread", "a thread", "two threads", "kind"],
)
def test_items_that_differ_at_all_get_their_own_vectors(desk: Desk, items: list[Item]) -> None:
    """By a space, by the end of a large image, also where a thread hashes it, or by kind alone."""
    assert right(desk.embed(*items), items)
    assert right(desk.embed(*reversed(items)), items[::-1])
    assert len(desk.towers.jobs) == len({item.kind for item in items})


def test_an_item_that_the_reader_refused_stays_in_its_place(desk: Desk) -> None:
    """It is not sent, and its neighbours are answered as if it were not there."""
    empty = TextEmpty()
    outcome = desk.embed(text("a"), empty, text("b"))
    assert desk.towers.sent == [("text", ["a", "b"])]
    assert outcome.faults == {1: empty}
    assert states(outcome) == ["miss", "bypass", "miss"]
    assert right(desk.embed(text("a"), text("b")), [text("a"), text("b")])
    assert set(desk.embed(TextEmpty(), ImageEmpty()).faults) == {0, 1}
    assert len(desk.towers.sent) == 1


def test_a_bad_image_is_refused_again_from_memory(desk: Desk) -> None:
    """The same bytes are not sent, decoded and refused over and over."""
    desk.towers.refuse[b"bad"] = "image_too_many_pixels"
    first = desk.embed(image(b"bad"))
    desk.towers.take()
    again = desk.embed(image(b"bad"), image(b"good"), image(b"bad"))
    assert desk.towers.sent == [("image", [b"good"])]
    assert [fault.code for fault in first.faults.values()] == ["image_too_many_pixels"]
    refused = dict.fromkeys((0, 2), "image_too_many_pixels")
    assert {i: fault.code for i, fault in again.faults.items()} == refused
    assert again.found.states[0] is State.HIT_L1
    assert again.faults[0] is not again.faults[2]  # its place is written into each
    desk.towers.refuse.clear()
    assert right(desk.embed(image(b"bad"), query=FRESH), [image(b"bad")])  # no-cache passes it by


def test_a_bad_image_that_is_asked_for_again_and_again_is_tried_in_a_minute(desk: Desk) -> None:
    """A refusal from memory does not make that memory any younger."""
    now = 0.0
    desk.cache.negative = NegativeTier(clock=lambda: now)
    desk.towers.refuse[b"bad"] = "image_undecodable"
    for _ in range(3):
        assert desk.embed(image(b"bad"), image(b"good")).faults
        now += 25
    desk.towers.take()
    desk.embed(image(b"bad"), image(b"good"))
    assert desk.towers.sent == [("image", [b"bad"])]


@pytest.mark.parametrize(
    "code", ["deadline_exceeded", "worker_lost", "item_internal", "unheard_of"]
)
def test_what_may_go_better_next_time_is_tried_again(desk: Desk, code: str) -> None:
    """A busy minute or a crash is not the image's fault."""
    desk.towers.refuse[b"x"] = code
    assert desk.embed(image(b"x")).faults
    desk.towers.refuse.clear()
    outcome = desk.embed(image(b"x"))
    assert len(desk.towers.jobs) == 2
    assert right(outcome, [image(b"x")])


def test_no_store_leaves_neither_vector_nor_refusal_behind(desk: Desk) -> None:
    """What a client wants forgotten is computed, answered and gone."""
    desk.towers.refuse[b"bad"] = "image_undecodable"
    items = [text("a"), image(b"x")]
    for _ in range(2):
        assert right(desk.embed(*items, query=TRACELESS), items)
        assert desk.embed(image(b"bad"), query=TRACELESS).faults
    assert len(desk.cache.memory) == 0
    desk.towers.take()
    desk.embed(*items, image(b"bad"))
    assert sorted(desk.towers.sent) == [("image", [b"x", b"bad"]), ("text", ["a"])]


def test_a_full_server_is_told_to_the_caller_as_itself(desk: Desk) -> None:
    """Overloaded refuses the whole request with its own status, and nothing is remembered of it."""
    desk.towers.failure = Overloaded()
    with pytest.raises(Overloaded) as refusal:
        desk.embed(text("a"), image(b"x"))
    assert refusal.value is desk.towers.failure
    desk.towers.failure = None
    items = [text("a"), image(b"x")]
    assert right(desk.embed(*items), items)
    desk.towers.failure = Overloaded()
    assert states(desk.embed(*items)) == ["hit-l1"] * 2  # hits need no worker


def test_a_missed_deadline_is_each_items_own(desk: Desk) -> None:
    """Known items of the same request are answered all the same."""
    desk.embed(text("a"))
    desk.towers.failure = DeadlineExceeded()
    outcome = desk.embed(text("a"), text("b"), text("c"))
    faults = {i: type(fault) for i, fault in outcome.faults.items()}
    assert faults == dict.fromkeys((1, 2), DeadlineExceeded)


def test_a_broken_tower_is_an_internal_error_and_the_log_says_why(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """The client reads the public sentence; the cause stays here."""
    desk.towers.failure = RuntimeError("the weights are made of cheese")
    outcome = desk.embed(text("a"))
    assert type(outcome.faults[0]) is ItemInternal
    assert "cheese" not in outcome.faults[0].message
    assert "cheese" in caplog.text


@pytest.mark.parametrize(
    "rows",
    [
        *(b"", bytes(4 * DEMO.dim), bytes(4 * DEMO.dim * 2 + 4), bytes(2 * DEMO.dim * 2)),
        np.full(2 * DEMO.dim, np.nan, "<f4").tobytes(),
    ],
)
def test_a_reply_that_is_no_vectors_is_neither_served_nor_kept(desk: Desk, rows: bytes) -> None:
    """Too few rows, rows of another length or NaN become internal errors."""

    async def submit(kind: Kind, job: Job, asker: Asker) -> Reply:
        return Reply(rows, [1, 1] if rows else [])

    embedder = Embedder(desk.service.fingerprints(), desk.cache, submit, TIMEOUT)
    outcome = desk.runner.run(embedder.embed([text("a"), text("b")], Query()))
    assert len(desk.cache.memory) == 0
    assert {type(fault) for fault in outcome.faults.values()} == {ItemInternal}


def test_a_job_carries_its_deadline(desks: Desks) -> None:
    """The worker can drop what nobody waits for any more."""
    desk = desks(timeout=TIMEOUT)
    before = time.monotonic()
    desk.embed(text("a"))
    assert before + TIMEOUT <= desk.towers.jobs[0][1].deadline <= time.monotonic() + TIMEOUT


def test_the_time_spent_is_the_longest_of_both_towers() -> None:
    """As the workers report it: they run side by side, so their times do not add up."""
    spent = Query(cache=0.0015)
    spent.add(Reply(b"", [], queue_seconds=0.2, decode_seconds=0.01, infer_seconds=0.3))
    spent.add(Reply(b"", [], queue_seconds=0.1, decode_seconds=0.02, infer_seconds=0.1))
    assert spent.timing() == (
        b"cache;dur=1.500, queue;dur=200.000, decode;dur=20.000, infer;dur=300.000"
    )
    assert re.fullmatch(rb"(\w+;dur=\d+\.\d+(, |$))+", spent.timing())


@given(seconds=st.floats(0, 1000))
def test_a_hits_header_says_what_the_long_form_would(seconds: float) -> None:
    """To a microsecond; what was not done took no time."""
    said = dict(part.split(b";dur=") for part in Query(cache=seconds).timing().split(b", "))
    assert abs(float(said[b"cache"]) - seconds * 1e3) <= 0.0011
    assert [said[name] for name in (b"queue", b"decode", b"infer")] == [b"0.000"] * 3
    assert list(said) == [b"cache", b"queue", b"decode", b"infer"]
