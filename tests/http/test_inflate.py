"""Compressed bodies: what is inside comes out, in bounded steps, and what is wrong is refused."""

import asyncio
import gzip
import zlib
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litapi.errors import BodyTooLarge, MediaTypeUnsupported, Overloaded, RequestInvalid
from litapi.http.request import MOST_MEMBERS, STEP, Connection, Incoming
from tests.support.wire import Wire, arrive, body_of


def raw(data: bytes) -> bytes:
    """Deflate as many clients mean it: without zlib's frame."""
    coder = zlib.compressobj(wbits=-15)
    return coder.compress(data) + coder.flush()


CODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "upper case": ("GZIP", gzip.compress),
    "with identity": ("identity, gzip", gzip.compress),
    "two members": ("gzip", lambda data: gzip.compress(data[:3]) + gzip.compress(data[3:])),
    "deflate": ("deflate", zlib.compress),
    "deflate, bare": ("deflate", raw),
    "identity": ("identity", bytes),
}


def encoded(pieces: Sequence[bytes], header: str, limit: int = 8 << 20) -> Incoming:
    """A request whose body comes in these pieces."""
    return arrive(Wire(pieces), {"content-encoding": header}, limit=limit)


@pytest.mark.parametrize("coder", CODERS)
@given(data=st.binary(max_size=300), cut=st.integers(1, 40))
def test_a_compressed_body_comes_out_as_it_was(coder: str, data: bytes, cut: int) -> None:
    """Wherever the network cuts it."""
    header, compress = CODERS[coder]
    body = compress(data)
    pieces = [body[i : i + cut] for i in range(0, len(body), cut)] or [b""]
    assert body_of(encoded(pieces, header)) == data


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("size", [STEP - 1, STEP, STEP + 1, 3 * STEP, 4 * STEP + 777])
def test_a_body_of_many_steps_comes_out_whole(coder: str, size: int) -> None:
    """Also where a step ends just at its end."""
    header, compress = CODERS[coder]
    assert len(body_of(encoded([compress(bytes(size))], header))) == size


@pytest.mark.parametrize("header", ["br", "zstd", "compress", "gzip, gzip", "gzip, br", "x", "é"])
def test_another_coding_is_refused_by_the_name_of_its_header(header: str) -> None:
    """Also several at once: each may multiply the bytes."""
    with pytest.raises(MediaTypeUnsupported, match="Content-Encoding"):
        body_of(encoded([b"abc"], header))


@pytest.mark.parametrize(
    ("body", "header"),
    [
        (b"plain", "gzip"), (b'{"text": "plain"}', "deflate"), (gzip.compress(b"abc")[:-1], "gzip"),
        (gzip.compress(b"abc") + b"rest", "gzip"), (gzip.compress(b"abc")[:-8] + bytes(8), "gzip"),
        (zlib.compress(b"abc") + b"rest", "deflate"), (zlib.compress(b"abc")[:-1], "deflate"),
        (b"\x1f", "gzip"), (gzip.compress(b"") * (MOST_MEMBERS + 1), "gzip"),
    ],
    ids=[
        *("not gzip", "not deflate", "gzip cut short", "gzip with a rest"),
        *("gzip with a wrong sum", "deflate with a rest", "deflate cut short", "one byte"),
        "too many members",
    ],
)  # fmt: skip
def test_what_is_not_compressed_as_it_says_is_refused(body: bytes, header: str) -> None:
    """Cut short, damaged, followed by something else, or in senselessly many members."""
    with pytest.raises(RequestInvalid, match="Content-Encoding"):
        body_of(encoded([body], header))


class Bound(Connection):
    """A connection of a process that holds so many bytes; what it was asked to hold is `seen`."""

    def __init__(self, most: int) -> None:
        self.seen: list[int] = []
        self._most = most

    def hold(self, size: int) -> bool:
        self.seen.append(size)
        return sum(self.seen) <= self._most


def test_a_bomb_is_refused_at_the_limit() -> None:
    """A thousand bytes for one: no more comes out than the limit and one step."""
    incoming = encoded([gzip.compress(bytes(200 << 20), 9)], "gzip")
    incoming.connection = bound = Bound(1 << 30)
    with pytest.raises(BodyTooLarge):
        body_of(incoming)
    assert sum(bound.seen) <= (8 << 20) + STEP
    assert max(bound.seen) <= STEP


def test_a_body_that_the_process_cannot_hold_is_refused() -> None:
    """What comes out counts for what all requests hold together."""
    incoming = encoded([gzip.compress(bytes(4 << 20))], "gzip")
    incoming.connection = Bound(0)
    with pytest.raises(Overloaded):
        body_of(incoming)


def test_others_have_their_turn_while_a_body_is_decompressed() -> None:
    """The event loop turns at least once for each step."""

    async def run() -> int:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(others())
        await encoded([gzip.compress(bytes(8 * STEP), 9)], "gzip").body()
        beside.cancel()
        return turns

    assert asyncio.run(run()) >= 8
