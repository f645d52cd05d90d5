import time
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import InvalidResponse, ResponseError

from cache.redis.replies import PART, Replies

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
        assert replies.feed(piece) is PART
    return replies.feed(pieces[-1])


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


def test_a_line_or_an_error_is_a_reply_in_any_pieces() -> None:
    """A greeting is answered with a line; a proxy puts errors in the places of values it lost."""
    for reply in (b"+OK\r\n", b"-WRONGPASS no\r\n", b"*2\r\n$1\r\nx\r\n-ERR lost\r\n"):
        whole, dripped = read(reply), read(*(reply[i : i + 1] for i in range(len(reply))))
        assert str(whole) == str(dripped)
    assert read(b"+OK\r\n") == b"OK"
    value, error = read(b"*2\r\n$1\r\nx\r\n-ERR lost\r\n")
    assert value == b"x"
    assert isinstance(error, ResponseError)
    assert (str(error), error.status_code) == ("ERR lost", "ERR")


@pytest.mark.parametrize(
    "reply",
    [
        b"*1000000000\r\n", b"*10\r\n", b"*1\r\n*1000000000\r\n", b"*1\r\n*1\r\n$1\r\nx\r\n",
        b"$1000000000\r\n", b"*1\r\n$1000000000\r\n", b"*2\r\n$100000\r\n", b":7\r\n",
        b"$1\r\nx\r\n", b"*-2\r\n", b"*1\r\n$-2\r\n", b"*99999999999999999999\r\n",
        b"$" + b"0" * 100, b"+" + b"a" * 5000, b"*1\r\n-" + b"a" * 5000, b"*x\r\n", b"*1\r\n$x\r\n",
        b"*" + b"1" * 100, b"%1000000000\r\n", b"~1000000000\r\n", b">1000000000\r\n", b"|1\r\n",
        b"*-1\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"\x15\x03\x03",
    ],
)  # fmt: skip
def test_what_nobody_asked_for_is_refused_at_once(reply: bytes) -> None:
    """Thirteen bytes kept the parser in C busy for eleven seconds; here nothing is made of them."""
    began = time.process_time()
    with pytest.raises(InvalidResponse):
        read(reply)
    for end in range(1, len(reply)):
        with pytest.raises(InvalidResponse):
            read(reply[:end], reply[end:])
    assert time.process_time() - began < 5.0


@pytest.mark.parametrize("reply", [written([b"x"]), written([b"x", None]), b"+OK\r\n"])
def test_what_comes_after_a_reply_is_refused(reply: bytes) -> None:
    """It belongs to nobody."""
    with pytest.raises(InvalidResponse):
        read(reply + b"+")


def test_a_drip_of_a_large_reply_costs_what_its_bytes_cost() -> None:
    """Each piece is added to what is there; nothing is read or copied again from the start."""
    value = bytes(1 << 16)
    reply = written([value] * 64)
    pieces = [reply[i : i + 97] for i in range(0, len(reply), 97)]
    began = time.process_time()
    assert read(*pieces, most=64) == [value] * 64
    assert time.process_time() - began < 5.0
