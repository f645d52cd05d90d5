import time
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from cache.redis.replies import LONGEST_VALUE, PART, Malformed, Replies

VALUES = st.lists(st.none() | st.binary(max_size=40) | st.just(b"\r\n$3\r\n*9\r\n"), max_size=9)


def written(values: list[bytes | None]) -> bytes:
    """A list as Redis writes it."""
    parts = [b"$-1\r\n" if one is None else b"$%d\r\n%b\r\n" % (len(one), one) for one in values]
    return b"*%d\r\n" % len(values) + b"".join(parts)


def read(*pieces: bytes, most: int = 9) -> Any:
    """The reply that these pieces make."""
    replies = Replies()
    replies.most = most
    for piece in pieces[:-1]:
        replies.feed(piece)
        assert replies.gets() is PART
    replies.feed(pieces[-1])
    return replies.gets()


@given(VALUES, st.data())
def test_a_list_is_read_in_any_pieces(values: list[bytes | None], data: st.DataObject) -> None:
    """As it was written, and as the parser in C reads it."""
    reply = written(values)
    parser = hiredis.Reader()
    parser.feed(reply)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(reply) - 1))))
    pieces = [reply[a:b] for a, b in zip([0, *cuts], [*cuts, len(reply)], strict=True)]
    assert read(*pieces) == values == parser.gets()


@given(st.integers(1, 9), st.binary(max_size=40))
def test_values_of_one_length_are_read_at_once(count: int, value: bytes) -> None:
    """The way of hits gives what the other way gives."""
    values: list[bytes | None] = [bytes([n]) + value for n in range(count)]
    assert read(written(values)) == values


@pytest.mark.parametrize(
    ("reply", "means"),
    [(b"+OK\r\n", b"OK"), (b":7\r\n", 7), (b"$2\r\nab\r\n", b"ab"), (b"$-1\r\n", None)],
)
def test_a_reply_may_be_no_list(reply: bytes, means: Any) -> None:
    """A greeting is answered with a line."""
    assert read(reply) == means
    assert read(*(reply[i : i + 1] for i in range(len(reply)))) == means


def test_an_error_is_returned_wherever_it_stands() -> None:
    """A proxy puts one in the place of a value that it lost."""
    error = read(b"-WRONGPASS no\r\n")
    assert isinstance(error, ResponseError)
    assert str(error) == "WRONGPASS no"
    one, other = read(b"*2\r\n$1\r\nx\r\n-ERR lost\r\n")
    assert (one, str(other)) == (b"x", "ERR lost")


def test_what_comes_after_a_reply_is_seen() -> None:
    """It belongs to nobody, and its connection is to be ended."""
    for reply in (written([b"x"]), written([b"x", None]), b"+OK\r\n"):
        replies = Replies()
        replies.most = 9
        replies.feed(reply + b"+")
        assert replies.gets() is not PART
        assert replies.has_data()


@pytest.mark.parametrize(
    "reply",
    [
        b"*1000000000\r\n", b"*10\r\n", b"*1\r\n*1000000000\r\n", b"*1\r\n*1\r\n$1\r\nx\r\n",
        b"$1000000000\r\n", b"*1\r\n$1000000000\r\n", b"*2\r\n$%d\r\n" % (LONGEST_VALUE + 1),
        b"*-2\r\n", b"*1\r\n$-2\r\n", b"*99999999999999999999\r\n", b"*" + b"1" * 100,
        b"$" + b"0" * 100, b"+" + b"a" * 5000, b"*1\r\n-" + b"a" * 5000, b"*x\r\n", b"*1\r\n$x\r\n",
        b"%1000000000\r\n", b"~1000000000\r\n", b">1000000000\r\n", b"|1\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n", b"\x15\x03\x03",
    ],
)  # fmt: skip
def test_a_length_that_nobody_asked_for_is_refused_at_once(reply: bytes) -> None:
    """Thirteen bytes kept the parser in C busy for eleven seconds; here nothing is made of them."""
    began = time.process_time()
    with pytest.raises(Malformed):
        read(reply)
    for end in range(1, len(reply)):
        try:
            read(reply[:end], reply[end:])
        except Malformed:
            continue
        raise AssertionError(f"taken in two pieces, cut at {end}")
    assert time.process_time() - began < 5.0


def test_a_drip_of_a_large_reply_costs_what_its_bytes_cost() -> None:
    """Each piece is added to what is there; nothing is read or copied again from the start."""
    value = bytes(LONGEST_VALUE)
    reply = written([value] * 64)
    pieces = [reply[i : i + 97] for i in range(0, len(reply), 97)]
    began = time.process_time()
    assert read(*pieces, most=64) == [value] * 64
    assert time.process_time() - began < 5.0
