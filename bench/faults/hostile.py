"""Pictures and bodies that cost a server much, pictures that went bad, URLs that lead inside.

A damaged picture may still decode: then it is a good one, and its answer must be a vector.
"""

from __future__ import annotations

import json
import struct
import zlib
from random import Random

from PIL import Image

from bench.faults.question import drawn_picture
from bench.load.photo import encoded

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
DAMAGES = ("flip", "overwrite", "cut", "insert", "repeat", "remove", "enlarge")
HUGE = 60_000  # pixels a side
SIDE = 7000  # pixels; 49 of the 50 million that a picture may have
MAX_URL_CHARS = 8192  # the fetcher's own limit

# URLs that must never be fetched: places inside, and spellings that two parsers read differently.
# Each was a hole in some server once. The fetcher's tests and the table of faults share them.
FORBIDDEN_HOSTS = [
    "127.0.0.2", "127.0.0.1", "127.255.255.254", "localhost", "LOCALHOST", "[::1]",
    "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.2]", "[::ffff:7f00:2]", "[::127.0.0.2]", "0.0.0.0",
    "0.0.0.2", "[::]", "169.254.169.254", "10.0.0.1", "172.16.0.1", "172.31.255.255",
    "192.168.0.1", "100.64.0.1", "192.0.0.8", "192.0.0.192", "192.88.99.1", "198.18.0.1",
    "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16",
    "100.100.100.200", "[64:ff9b::7f00:2]", "[64:ff9b:1::7f00:2]", "[64:ff9b::808:808]",
    "[2002:7f00:2::]", "[2001:0:7f00:2::]", "[fd00::1]", "[fd00:ec2::254]", "[fe80::1]",
    "[fec0::1]", "[ff02::1]", "[5f00::1]", "[2001:db8::1]", "[3fff::1]", "[100::1]",
]  # fmt: skip

INVALID_URLS = [
    "http://0x7f.1/", "http://0x7f000002/", "http://2130706434/", "http://017700000002/",
    "http://0177.0.0.2/", "http://127.1/", "http://127.0.2/", "http://127.0.0.02/",
    "http://127.0.0.2./", "http://127.0.0.256/", "http://1.2.3.4.5/", "http://①②⑦.0.0.2/",
    "http://１２７.0.0.2/", "http://127。0。0。2/", "http://exam\u00adple.com/",
    "http://\u212aelvin.com/", "http://example.com./", "http://example..com/",
    "http://.example.com/", "http://-example.com/", "http://example.com\\@127.0.0.2/",
    "http:\\\\127.0.0.2\\", "http://user@127.0.0.2/", "http://example.com@127.0.0.2/",
    "http://user:secret@example.com/", "http://example.com%2f@127.0.0.2/",
    "http://%31%32%37.0.0.2/", "http://127.0.0.2 /", "http://127.0.0.2\r\nHost: x/",
    "http://example.com/\x00", "http://example.com/\u2028", "http://example.com/\ud800",
    " http://example.com/", "http://[::1/", "http://::1/", "http://[fe80::1%25lo]/",
    "http://[127.0.0.2]/", "http://example.com:99999/", "http://example.com:0/",
    "http://example.com:/", "http://example.com:80:80/", "http://", "http:///image",
    "http:127.0.0.2", "//127.0.0.2/", "127.0.0.2", "", "file:///etc/passwd", "ftp://127.0.0.2/",
    "gopher://127.0.0.2:70/_x", "data:image/png;base64,AAAA", "javascript:alert(1)",
    "unix:///run/x.sock", "httpſ://example.com/", "http://example.com/" + "a" * MAX_URL_CHARS,
]  # fmt: skip


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def scanned_jpeg(
    scans: int,
    *,
    note: bytes = b"",
    side: int = SIDE,
    band: tuple[int, int, int] = (1, 63, 0x00),
    restarts: bool = False,
) -> bytes:
    """A grey progressive JPEG with so many scans that hold nothing, of ten bytes each.

    `band` is first and last coefficient and the two bit positions; with `restarts` the decoder
    looks for a restart marker after every block.
    """
    code = bytes([1, *bytes(15), 0])  # one code of one bit: end of block
    tables = _segment(0xDB, bytes([0, *[1] * 64])) + _segment(0xC4, b"\x00" + code + b"\x10" + code)
    frame = _segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + bytes([1, 0x11, 0]))
    every = _segment(0xDD, struct.pack(">H", 1)) if restarts else b""
    first = _segment(0xDA, bytes([1, 1, 0, 0, 0, 1]))
    scan = _segment(0xDA, bytes([1, 1, 0, *band]))
    head = b"\xff\xd8" + _segment(0xFE, note) + tables + frame + every
    return head + first + scan * scans + b"\xff\xd9"


def long_bmp(width: int = 50_000_000, note: int = 0) -> bytes:
    """One pixel and the end of a line, in a compressed BMP that is one line high."""
    lines = b"\x01\x00\x00\x00\x00\x01"
    info = struct.pack("<IiiHHIIiiII", 40, width, 1, 1, 8, 1, 0, note, 0, 256, 0)
    head = struct.pack("<IHHI", 1078 + len(lines), 0, 0, 1078)
    return b"BM" + head + info + bytes(1024) + lines


def even_webp(note: bytes = b"", side: int = SIDE) -> bytes:
    """One colour, half transparent, without loss: a few bytes for four a pixel."""
    picture = Image.new("RGBA", (side, side), (200, 10, len(note), 128))
    data = encoded(picture, "WEBP", lossless=True, quality=0, method=0)
    chunks = data[12:] + b"NOTE" + struct.pack("<I", len(note)) + note
    chunks += bytes(len(chunks) % 2)
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def deep_png(note: bytes = b"", side: int = SIDE, colour: int = 6) -> bytes:
    """Sixteen bits a channel, with transparency where `colour` is 6: eight bytes a pixel."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    packer, row = zlib.compressobj(1), bytes(1 + side * channels * 2)
    data = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    return png(side, 16, colour, chunk(b"tEXt", b"a\0" + note), chunk(b"IDAT", data))


def png(side: int, depth: int, colour: int, *chunks: bytes, interlaced: int = 0) -> bytes:
    """A square one of these chunks."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, interlaced))
    return b"".join([b"\x89PNG\r\n\x1a\n", head, *chunks, chunk(b"IEND", b"")])


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


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


def huge() -> tuple[bytes, bytes, bytes]:
    """A few bytes each that claim gigapixels: a PNG without its end, a BMP, a GIF."""
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    info = struct.pack("<IiiHHIIiiII", 40, HUGE, HUGE, 1, 24, 0, 0, 0, 0, 0, 0)
    bmp = b"BM" + struct.pack("<IHHI", 1054, 0, 0, 54) + info + bytes(1000)
    return png(HUGE, 8, 2, data)[:-12], bmp, gif(65535) + b";"


def gif(side: int, frames: int = 1, comment: bytes = b"") -> bytes:
    """Its frames, each after a comment, without an end."""
    screen = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02\x02\x44\x01\x00"
    return screen + (comment + frame) * frames


def nested(size: int) -> dict[str, bytes]:
    """Bodies of about `size` bytes of JSON that become many objects, or deep ones, by name."""
    half = size // 2 - 20
    pair, key = b'{"a":', b'"b":0,'
    lists, objects = b"[" * 500 + b"]" * 500 + b",", pair * 500 + b"0" + b"}" * 500 + b","
    return {
        "lists in lists": b'{"input":[' + lists * (size // len(lists) - 1) + b"[]]}",
        "objects deep in lists": b'{"input":[' + objects * (size // len(objects) - 1) + b"{}]}",
        "brackets": b'{"input":' + b"[" * half + b"]" * half + b"}",
        "brackets left open": b'{"input":' + b"[" * (size - 20),
        "objects in objects": pair * (size // 6) + b"0" + b"}" * (size // 6),
        "empty lists": b'{"input":[' + b"[]," * (size // 3 - 10) + b"[]]}",
        "empty objects": b'{"images":[' + b"{}," * (size // 3 - 10) + b"{}]}",
        "numbers": b'{"images":[' + b"0," * (size // 2 - 10) + b"0]}",
        "keys": b"{" + key * (size // len(key) - 2) + b'"c":0}',
        "one string": b'{"images":["' + b"a" * (size - 20) + b'"]}',
        "escapes": b'{"images":["' + b"\\u00e9" * (size // 6 - 4) + b'"]}',
        "blanks": b" " * (size - 20) + b'{"text":"a"}',
    }


def accents(many: int) -> dict[str, bytes]:
    """Text where base64 belongs, of so many characters, by name."""
    plain = "é".encode() * many
    return {
        "accents": b'{"image":"' + plain + b'"}',
        "accents after base64": b'{"image":"' + b"A" * many + plain[: many // 2 * 2] + b'"}',
        "accents in a list": b'{"images":["' + plain + b'"]}',
        "blanks in base64": b'{"image":"' + b"A  \\n" * (many // 4) + b'"}',
        "accents in a data URI": b'{"image":"data:image/png;base64,' + plain + b'"}',
    }


def amplified(labels: int = 3, size: int = 100_000, places: int = 10_000) -> bytes:
    """A question to /classify whose captions would have `labels` · `size` · `places` characters."""
    names = [chr(ord("a") + n) * size for n in range(labels)]
    return json.dumps({"image": "", "labels": names, "template": "{label}" * places}).encode()
