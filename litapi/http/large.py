"""Large JSON bodies, read within bounds and in turns.

A JSON parser blocks the event loop until it is done; it turns 64 MB of brackets into gigabytes of
objects, and copies an image in base64. So a large body is skimmed first, slice by slice. Brackets,
commas and colons outside strings are counted, and more than any form can need is refused before
objects are made. Each long string is replaced by a token, and the small rest is parsed. A long
string that may be a text is put back; a longer one stays a token, and its bytes are read piece by
piece where an image is expected.

A token is random, so a client's own string is never mistaken for one.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from litapi.errors import BodyTooLarge, JsonInvalid, TooManyItems
from litapi.http.pace import Pace

LONG = 512  # bytes from which a string is replaced by a token
SLICE = 64 << 10  # bytes that are skimmed in one step
PIECE = 128 << 10  # bytes of a long string that are read in one step
HEAD = 64  # characters of a long string that begin its token
TOKEN = HEAD + 24  # characters of a token
DEPTH = 7  # a body, its list, an input, the list in that, a part, the object in that, a string
QUOTE = b'"'[0]
STRUCTURE = b",:[{"
BOM = b"\xef\xbb\xbf"
NOT_TEXT = (
    "The body is not JSON but bytes. An image as it is goes to /embed_image with its own"
    " Content-Type, such as image/png."
)

_UNSAFE = re.compile(r"[^0-9A-Za-z .:;,/_+=-]")
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# Whole escapes only, a pair of surrogates as one, so that a string can be cut where a match ends.
# Not possessive as a whole: before Python 3.11.5 such a match ends within an escape.
_WHOLE = re.compile(
    rb"(?:[^\\]++|\\[^u]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}"
    rb"|\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?=[^\\]|\\[^u]|\\u(?![dD][c-fC-F])[0-9a-fA-F]{4})))*"
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a large body may contain beside its long strings."""

    structure: int  # brackets, commas and colons
    strings: int  # long ones
    rest: int  # bytes outside them
    text: int  # bytes of the longest string that may be a text


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class LongString:
    """A string too long for any text: its bytes in the body, without the quotes."""

    token: str
    body: bytes = field(repr=False)
    start: int
    end: int

    def pieces(self) -> Iterator[bytes]:
        """Its value in UTF-8, piece by piece. Raises JsonInvalid where it is not valid JSON."""
        at = self.start
        while at < self.end:
            stop = self._cut(at)
            yield _said(self.body[at:stop])
            at = stop

    def _cut(self, at: int) -> int:
        """An offset near `at + PIECE` that splits no escape and no character."""
        stop = at + PIECE
        if stop >= self.end:
            return self.end
        if self.body.find(b"\\", at, stop) >= 0:
            whole = _WHOLE.match(self.body, at, stop)
            stop = whole.end() if whole else at
        back = next((n for n in range(4) if self.body[stop - n] & 0xC0 != 0x80), 0)
        if stop - back == at:
            raise JsonInvalid("The body is not valid JSON: a string has an invalid escape.")
        return stop - back


@dataclass(slots=True)
class Skim:
    """Where the strings of a JSON text begin and end, found slice by slice."""

    body: bytes
    bounds: Bounds
    shortest: int
    long: list[tuple[int, int]] = field(default_factory=list)  # start and end of each long string
    opened: int = -1  # offset of the quote of a string that is open
    structure: int = 0
    taken: int = 0  # bytes of long strings
    escaped: bool = False  # whether a backslash ended the previous slice

    def take(self, at: int) -> None:
        """Skim one slice. Raises JsonInvalid: it contains a NUL, as nearly every image and no JSON;
        TooManyItems: the body has more values than any form; BodyTooLarge: more bytes are outside
        long strings than any form needs."""
        end = min(at + SLICE, len(self.body))
        piece = b"." * self.escaped + self.body[at + self.escaped : end]
        if b"\\" in piece:
            piece = piece.replace(b"\\\\", b"..").replace(b'\\"', b"..")
        self.escaped = piece[-1:] == b"\\"
        if b"\0" in piece:
            raise JsonInvalid(NOT_TEXT)
        if self.opened < 0 or b'"' in piece:
            outside = b"".join(piece.split(b'"')[self.opened >= 0 :: 2])
            self.structure += len(outside) - len(outside.translate(None, STRUCTURE))
            self._pair(np.flatnonzero(np.frombuffer(piece, np.uint8) == QUOTE) + at)
            self._check(end)

    def _pair(self, quotes: Any) -> None:
        if self.opened >= 0:
            quotes = np.concatenate(([self.opened], quotes))
        pairs = quotes[: len(quotes) // 2 * 2].reshape(-1, 2)
        for opened, closed in pairs[pairs[:, 1] - pairs[:, 0] > self.shortest].tolist():
            self.long.append((opened + 1, closed))
            self.taken += closed - opened - 1
        self.opened = int(quotes[-1]) if len(quotes) % 2 else -1

    def _check(self, end: int) -> None:
        left = (end if self.opened < 0 else self.opened) - self.taken
        bounds = self.bounds
        if self.structure > bounds.structure or len(self.long) > bounds.strings:
            raise TooManyItems("The body has more values than this server accepts.")
        if left > bounds.rest:
            raise BodyTooLarge("The body has more beside its items than this server accepts.")


async def read(body: bytes, bounds: Bounds, shortest: int = LONG) -> tuple[Any, list[LongString]]:
    """The content of a JSON body, and the long strings that stand in it as tokens.

    Strings of `shortest` bytes and more are read one by one. With 0 that is each string, so that a
    lone surrogate makes none but its own string invalid. Raises JsonInvalid: the body is no JSON;
    TooManyItems, BodyTooLarge: it is beyond the bounds.
    """
    pace, start = Pace(), len(BOM) if body[: len(BOM)] == BOM else 0
    skim = Skim(body, bounds, shortest)
    for at in range(start, len(body), SLICE):
        skim.take(at)
        await pace.rest()
    if skim.opened >= 0:
        raise JsonInvalid("The body is not valid JSON: it ends within a string.")
    rest, found = await _taken_out(body, start, skim.long)
    try:
        content = orjson.loads(rest)
    except orjson.JSONDecodeError as error:
        if shortest and SURROGATE.search(rest):
            return await read(body, bounds, shortest=0)
        raise JsonInvalid(f"The body is not valid JSON: {error.msg}.") from None
    texts, longer = {}, []
    for one in found:
        await pace.rest()
        if one.end - one.start <= bounds.text:
            texts[one.token] = _string(body[one.start - 1 : one.end + 1])
            continue
        longer.append(one)
        for _ in one.pieces():  # validates it, though it may never be used
            await pace.rest()
    return (_put_back(content, texts, DEPTH) if texts else content), longer


async def _taken_out(
    body: bytes, at: int, places: list[tuple[int, int]]
) -> tuple[bytes, list[LongString]]:
    """The body from `at` on with tokens in place of long strings, and those strings."""
    pace, secret = Pace(), secrets.token_hex(8)
    found: list[LongString] = []
    parts: list[bytes] = []
    for start, end in places:
        head = _UNSAFE.sub("?", body[start : min(end, start + HEAD)].decode("latin-1"))
        token = f"{head:.<{HEAD}}{secret}{len(found):08x}"
        found.append(LongString(token, body, start, end))
        parts += body[at:start], token.encode()
        at = end
        await pace.rest()
    return b"".join([*parts, body[at:]]), found


def _string(quoted: bytes) -> str:
    """The value of a string with its quotes; a lone surrogate stays, and is refused later."""
    try:
        said: str = orjson.loads(quoted)
    except orjson.JSONDecodeError:
        try:
            said = json.loads(quoted.decode())
        except ValueError:
            raise JsonInvalid("The body is not valid JSON: a string is not.") from None
    return said


def _said(raw: bytes) -> bytes:
    octets = np.frombuffer(raw, np.uint8)
    if octets.min() >= ord(" ") and octets.max() < 0x80 and b"\\" not in raw:
        return bytes(raw)
    return _string(b'"%b"' % bytes(raw)).encode("utf-8", "surrogatepass")


def _put_back(node: Any, texts: dict[str, str], depth: int) -> Any:
    if isinstance(node, str):
        return texts.get(node, node)
    if depth and isinstance(node, list):
        return [_put_back(one, texts, depth - 1) for one in node]
    if depth and isinstance(node, dict):
        return {texts.get(n, n): _put_back(one, texts, depth - 1) for n, one in node.items()}
    return node
