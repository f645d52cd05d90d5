"""One thing to embed, ready to be put into a request: a text or an encoded picture.

Each is stamped with a tag, so that no two of a run are the same bytes: a text is followed by a
made-up name, a JPEG carries a comment segment, a PNG a tEXt chunk. The stamp of a picture lies in
front and is a multiple of three bytes long, so everything behind it is base64-encoded only once.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Literal

import orjson
import pybase64

Kind = Literal["text", "image"]
PNG_HEAD = 33  # signature and IHDR, which must come first
JPEG_HEAD = 2  # start of image
MEDIA = {b"\xff\xd8": "image/jpeg", b"\x89P": "image/png"}

_SYLLABLES = [c + v for c in "bdfgklmnprstvwyz" for v in "aeio"]  # 64
_NAMES = [a + b for a in _SYLLABLES for b in _SYLLABLES]  # 12 bits each
_TAG_BITS = 60
_STIR = 0x9E3779B97F4A7C5  # odd, so that multiplying by it gives each tag words of its own


@dataclass(frozen=True, slots=True)
class Item:
    """A text or picture: its bytes, and the same as a JSON string (a picture as a data URI)."""

    kind: Kind
    data: bytes
    quoted: bytes
    media_type: str = "text/plain"


class Caption:
    """A text that can be stamped."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def stamped(self, tag: int) -> Item:
        """The caption with the name that the tag spells: `a red circle, by balo kimu teza nofi`."""
        text = f"{self._text}, by {spelt(tag)}"
        return Item("text", text.encode(), orjson.dumps(text))


class Picture:
    """An encoded JPEG or PNG that can be stamped."""

    __slots__ = ("_head", "_tail", "_tail64", "_uri", "media_type")

    def __init__(self, data: bytes) -> None:
        self.media_type = MEDIA[data[:2]]
        cut = PNG_HEAD if self.media_type == "image/png" else JPEG_HEAD
        self._head, self._tail = data[:cut], data[cut:]
        self._tail64 = pybase64.b64encode(self._tail)
        self._uri = f'"data:{self.media_type};base64,'.encode()

    def stamped(self, tag: int) -> Item:
        """The same pixels in bytes of their own."""
        mark = _text_chunk(tag) if self.media_type == "image/png" else _comment(tag)
        front = self._head + mark
        quoted = b"%b%b%b" % (self._uri, pybase64.b64encode(front), self._tail64) + b'"'
        return Item("image", front + self._tail, quoted, self.media_type)


def spelt(tag: int) -> str:
    """A tag of 60 bits as five pronounceable words; different tags, different words."""
    if not 0 <= tag < 1 << _TAG_BITS:
        raise ValueError(f"a tag has {_TAG_BITS} bits, {tag} does not fit")
    stirred = tag * _STIR
    return " ".join(_NAMES[stirred >> shift & 0xFFF] for shift in (48, 36, 24, 12, 0))


def _text_chunk(tag: int) -> bytes:
    body = b"tEXtComment\0%016x" % tag  # 28 bytes, with length and checksum 36
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def _comment(tag: int) -> bytes:
    text = b"%018x" % tag  # with marker and length 22, with the start of image 24
    return b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text
