"""Pictures that went bad: seeded damage to good ones of every format, and heads that boast.

A damaged picture may still decode: then it is a good one, and its answer must be a vector.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from random import Random

from bench.faults.question import drawn_picture

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
HUGE = 60_000  # pixels a side


def originals() -> list[bytes]:
    """One small picture of each format."""
    return [drawn_picture(f"original {form}", form, (64, 48)) for form in FORMATS]


def mutated(picture: bytes, rng: Random) -> bytes:
    """The picture with one kind of damage."""
    damage = rng.choice(DAMAGES)
    return bytes(damage(bytearray(picture), rng))


def _flip(data: bytearray, rng: Random) -> bytearray:
    for _ in range(rng.randint(1, 12)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def _overwrite(data: bytearray, rng: Random) -> bytearray:
    start = rng.randrange(len(data))
    stop = min(len(data), start + rng.randint(1, 64))
    data[start:stop] = rng.randbytes(stop - start)
    return data


def _cut(data: bytearray, rng: Random) -> bytearray:
    return data[: rng.randrange(1, len(data))]


def _insert(data: bytearray, rng: Random) -> bytearray:
    at = rng.randrange(len(data))
    return data[:at] + rng.randbytes(rng.randint(1, 64)) + data[at:]


def _repeat(data: bytearray, rng: Random) -> bytearray:
    start = rng.randrange(len(data))
    return data + data[start:]


def _remove(data: bytearray, rng: Random) -> bytearray:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randint(1, 64) :]


def _boast(data: bytearray, rng: Random) -> bytearray:
    """Large numbers where sizes and lengths stand."""
    at = rng.randrange(min(64, len(data) - 4))
    data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0"))
    return data


DAMAGES: tuple[Callable[[bytearray, Random], bytearray], ...] = (
    _flip,
    _overwrite,
    _cut,
    _insert,
    _repeat,
    _remove,
    _boast,
)


def huge_png() -> bytes:
    """A few bytes that claim 3.6 gigapixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", HUGE, HUGE, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(head) + _chunk(b"IDAT" + zlib.compress(bytes(1000)))


def _chunk(body: bytes) -> bytes:
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def huge_bmp() -> bytes:
    """The same in another format."""
    info = struct.pack("<IiiHHIIiiII", 40, HUGE, HUGE, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 1054, 0, 0, 54) + info + bytes(1000)


def huge_gif() -> bytes:
    """And in a third."""
    descriptor = b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
    screen = struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6)
    return b"GIF89a" + screen + descriptor + b"\x02\x02\x44\x01\x00;"
