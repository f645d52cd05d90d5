"""What is sent: texts and pictures, each request settled by seed, level and number alone.

Without repeats no item of a run equals another, so a cache is of no help. `Repeats` brings them
back: a share of the items is drawn from a small popular universe by Zipf's law, the others stay
new. The universe is sent once before the first level, so that the share is the hit share to be
expected of a cache that holds it.

Pictures and captions are made in advance. Each is stamped with a tag when it is sent, so that no
two of a run are the same bytes: a text is followed by a made-up name, a JPEG carries a comment
segment, a PNG a tEXt chunk. The stamp of a picture lies in front and is a multiple of three bytes
long, so everything behind it is base64-encoded only once. Drawn JPEGs get grain, so that
they weigh what photographs weigh; drawn PNGs stay flat, like the graphics that PNG is used for.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Literal

import numpy as np
import orjson
import pybase64
from PIL import Image

from bench.load.photo import encoded
from litapi.demo.caption import CHOICES, varied
from litapi.demo.drawing import Scene, draw

Target = Literal["text", "image", "mixed"]
SIZES = (
    (640, 480), (256, 256), (480, 640), (320, 240), (800, 600), (224, 224), (640, 360), (300, 400),
)  # fmt: skip
CAPTIONS = 512
DRAWINGS = 24
HOT = 255  # the level number in the tags of the popular universe
SEEDS = 1 << 20
_LEVELS, _COUNTER = 8, 32  # bits of a tag behind the 20 of the seed
_MASK = (1 << 64) - 1
Kind = Literal["text", "image"]
PNG_HEAD = 33  # signature and IHDR, which must come first
JPEG_HEAD = 2  # start of image
MEDIA = {b"\xff\xd8": "image/jpeg", b"\x89P": "image/png"}

_SYLLABLES = [c + v for c in "bdfgklmnprstvwyz" for v in "aeio"]  # 64
_NAMES = [a + b for a in _SYLLABLES for b in _SYLLABLES]  # 12 bits each
_TAG_BITS = 60
_STIR = 0x9E3779B97F4A7C5  # odd, so that multiplying by it gives each tag words of its own


class WorkloadError(Exception):
    """What was asked for cannot be sent; the program ends with exit code 2."""


@dataclass(frozen=True, slots=True)
class Repeats:
    """The share of items from a universe whose r-th member weighs 1 / r ** zipf."""

    share: float = 0.0
    universe: int = 256
    zipf: float = 1.0

    def ladder(self) -> list[float]:
        """Cumulated shares of the members, up to 1."""
        sums = list(accumulate((rank + 1) ** -self.zipf for rank in range(self.universe)))
        return [one / sums[-1] for one in sums]


@dataclass(frozen=True, slots=True)
class Job:
    """The items of one request, all of one kind."""

    kind: Kind
    items: list[Item]


class Workload:
    """The items of a run. Picklable: generator processes receive it whole."""

    def __init__(
        self,
        target: Target = "text",
        batch: int = 1,
        seed: int = 0,
        repeats: Repeats | None = None,
        pictures: Sequence[bytes] | None = None,
    ) -> None:
        if not 0 <= seed < SEEDS:
            raise WorkloadError(f"a seed lies between 0 and {SEEDS - 1}")
        self.target = target
        self.batch = batch
        self.seed = seed
        self.repeats = repeats or Repeats()
        self.kinds: tuple[Kind, ...] = ("text", "image") if target == "mixed" else (target,)
        self._ladder = self.repeats.ladder()
        self._captions = [Caption(text) for text in captions(seed)]
        encoded = (pictures or drawings(seed)) if "image" in self.kinds else []
        self._pictures = [Picture(one) for one in encoded]

    def job(self, level: int, number: int) -> Job:
        kind = self.kinds[0]
        if len(self.kinds) > 1:
            kind = self.kinds[_mix(self.seed, level, number, 1) % len(self.kinds)]
        first = number * self.batch
        return Job(kind, [self._item(kind, level, first + i) for i in range(self.batch)])

    @property
    def primers(self) -> int:
        """Requests that send the popular universe once."""
        return len(self.kinds) * -(-self.repeats.universe // self.batch)

    def primer(self, number: int) -> Job:
        turn, kind = divmod(number, len(self.kinds))
        ranks = range(turn * self.batch, (turn + 1) * self.batch)
        name = self.kinds[kind]
        return Job(name, [self._stamp(name, HOT, r % self.repeats.universe) for r in ranks])

    def _item(self, kind: Kind, level: int, place: int) -> Item:
        share = self.repeats.share
        if not share or _unit(self.seed, level, place, 2) >= share:
            return self._stamp(kind, level, place)
        rank = bisect(self._ladder, _unit(self.seed, level, place, 3))
        return self._stamp(kind, HOT, min(rank, self.repeats.universe - 1))

    def _stamp(self, kind: Kind, level: int, place: int) -> Item:
        tag = ((self.seed << _LEVELS | level) << _COUNTER) | place
        pool: Sequence[Caption | Picture] = self._captions if kind == "text" else self._pictures
        return pool[_mix(self.seed, level, place, 4) % len(pool)].stamped(tag)


def captions(seed: int, many: int = CAPTIONS) -> list[str]:
    """Captions from a few words to a few dozen, like those people write."""
    rng = Random(f"captions {seed}")
    clauses = (rng.choice((1, 1, 1, 2, 3)) for _ in range(many))
    return [" next to ".join(_clause(rng) for _ in range(some)) for some in clauses]


def _clause(rng: Random) -> str:
    stated = Scene.random(rng).attributes()
    return varied({name: stated[name] for name in CHOICES if rng.random() < 0.7}, rng).rstrip(".")


def drawings(seed: int, many: int = DRAWINGS) -> list[bytes]:
    """Encoded pictures of all sizes in turn; of three, two are JPEGs."""
    rng = Random(f"drawings {seed}")
    return [
        _drawn(rng, SIZES[i % len(SIZES)], "PNG" if i % 3 == 2 else "JPEG") for i in range(many)
    ]


def _drawn(rng: Random, size: tuple[int, int], form: str) -> bytes:
    picture = draw(Scene.random(rng), rng.getrandbits(32), canvas=size)
    if form == "JPEG":
        pixels = np.asarray(picture, np.int16)
        grain = np.random.default_rng(rng.getrandbits(32)).integers(-12, 13, pixels.shape, np.int16)
        picture = Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))
    return encoded(picture, form)


def folder(path: Path) -> list[bytes]:
    """The JPEGs and PNGs of a folder and the folders in it, by name.

    Raises:
        WorkloadError: there are none.
    """
    files = (file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file())
    found = [data for data in files if data[:2] in MEDIA and len(data) > PNG_HEAD]
    if not found:
        raise WorkloadError("the folder of --images holds no JPEG and no PNG")
    return found


def _mix(*parts: int) -> int:
    """A well-stirred 64-bit number (splitmix64): the same everywhere, and quicker than `Random`."""
    state = 0
    for part in parts:
        state = (state + part + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ state >> 27) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def _unit(*parts: int) -> float:
    return _mix(*parts) / 2.0**64


@dataclass(frozen=True, slots=True)
class Item:
    """A text or picture: its bytes, and the same as a JSON string (a picture as a data URI)."""

    kind: Kind
    data: bytes
    quoted: bytes
    media_type: str = "text/plain"


@dataclass(frozen=True, slots=True)
class Caption:
    text: str

    def stamped(self, tag: int) -> Item:
        """The caption with the name that the tag spells: `a red circle, by balo kimu teza nofi`."""
        text = f"{self.text}, by {spelt(tag)}"
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
