"""One record for each request, and what is read from headers into it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from bench.load.recording import STOPPED, Sample, states, timings
from tests.support.recordings import refused, sample


@pytest.mark.parametrize(
    ("scheduled", "sent", "latency"),
    [
        (1.0, 3.0, 2.5),  # waiting for a connection is part of it: no coordinated omission
        (3.0005, 3.0, 0.5),  # the half millisecond is not made a gift of
    ],
)
def test_latency_counts_from_when_it_was_due(scheduled: float, sent: float, latency: float) -> None:
    """Or from when it was sent, where that was sooner."""
    assert sample(scheduled=scheduled, sent=sent, done=3.5).latency == pytest.approx(latency)


@pytest.mark.parametrize(
    ("one", "good", "failed"),
    [
        (sample(), True, False),
        (refused(0, 429), False, False),
        (refused(0, 500), False, True),
        (sample(status=0, error="timeout"), False, True),
        (sample(error="not-unit"), False, True),
        (sample(status=0, error=STOPPED), False, False),
    ],
    ids=["200", "429", "500", "timeout", "wrong body", "stopped"],
)
def test_what_is_good_and_what_has_failed(one: Sample, good: bool, failed: bool) -> None:
    """A 429 and what Ctrl-C cut off are neither."""
    assert (one.good, one.failed) == (good, failed)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"", {}),
        (b"miss", {"miss": 1}),
        (b"hit-l1,miss,hit-l1", {"hit-l1": 2, "miss": 1}),
        (b"hit-l2, join", {"hit-l2": 1, "join": 1}),
        (b"HIT from somewhere,", {"HIT from somewhere": 1}),
    ],
)
def test_cache_states_are_counted(value: bytes, found: dict[str, int]) -> None:
    """One for each item."""
    assert states(value) == found


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"", {}),
        (b"cache;dur=0.105, infer;dur=12", {"cache": 0.105, "infer": 12.0}),
        (b'db;desc="a b";dur=53.2', {"db": 53.2}),
        (b"miss, total;dur=1", {"total": 1.0}),
        (b"a;dur=x, b;dur=, c;dur, d;dur=-1", {}),
        (b" spaced ; dur = 2.5 ", {"spaced": 2.5}),
    ],
)
def test_server_timings_are_read(value: bytes, found: dict[str, float]) -> None:
    """What cannot be read is left out."""
    assert timings(value) == found


@given(value=some.binary(max_size=60))
def test_no_header_makes_reading_fail(value: bytes) -> None:
    """A server may write there what it likes."""
    assert all(many > 0 for many in states(value).values())
    assert all(math.isfinite(number) for number in timings(value).values())
