"""Pictures that went bad: seeded damage to good ones of every format, and huge sizes in headers.

A damaged picture may still decode: then it is a good one, and its answer must be a vector.
"""

from __future__ import annotations

import struct
import zlib
from random import Random

from bench.faults.hostile import chunk
from bench.faults.question import drawn_picture

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
DAMAGES = ("flip", "overwrite", "cut", "insert", "repeat", "remove", "enlarge")
HUGE = 60_000  # pixels a side


def originals() -> list[bytes]:
    return [drawn_picture(f"original {form}", form, (64, 48)) for form in FORMATS]


def mutated(picture: bytes, rng: Random) -> bytes:
    """The picture with one kind of damage."""
    at, many = rng.randrange(1, len(picture)), rng.randint(1, 64)
    match rng.choice(DAMAGES):
        case "flip":
            data = bytearray(picture)
            for _ in range(rng.randint(1, 12)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            return bytes(data)
        case "overwrite":
            many = min(many, len(picture) - at)
            return picture[:at] + rng.randbytes(many) + picture[at + many :]
        case "cut":
            return picture[:at]
        case "insert":
            return picture[:at] + rng.randbytes(many) + picture[at:]
        case "repeat":
            return picture + picture[at:]
        case "remove":
            return picture[:at] + picture[at + many :]
    at = rng.randrange(min(64, len(picture) - 4))  # where sizes and lengths stand
    large = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0"))
    return picture[:at] + large + picture[at + 4 :]


def huge_png() -> bytes:
    """A few bytes that claim 3.6 gigapixels."""
    head = struct.pack(">IIBBBBB", HUGE, HUGE, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000)))


def huge_bmp() -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, HUGE, HUGE, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 1054, 0, 0, 54) + info + bytes(1000)


def huge_gif() -> bytes:
    descriptor = b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
    screen = struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6)
    return b"GIF89a" + screen + descriptor + b"\x02\x02\x44\x01\x00;"
