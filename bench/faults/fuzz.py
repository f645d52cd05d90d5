"""Row 27: what lies around the attacks, from a seed: thousands of small inputs of their kinds.

Whatever comes, each answer is a 2xx or a 4xx in good time, errors have the shared form, memory
stays within the bounds, and the server is right afterwards.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

from PIL import Image

from bench.faults.attacks import DECODING, GOOD_WITHIN, attacked, judge
from bench.faults.hostile import chunk, gif, long_bmp, png, scanned_jpeg
from bench.faults.question import IMAGE, OPENAI, TEXT, drawn_picture
from bench.faults.row import Finding
from bench.faults.slow_clients import pieces, talk
from bench.faults.stage import Stage
from bench.faults.traffic import PATIENCE
from bench.load.photo import encoded

CLIENTS = 8
SILENT = 10.0  # seconds after an answer in which no other came
SLOWEST = 5.0 + GOOD_WITHIN + DECODING  # seconds: a head may take five, and then comes the work
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n(\{\"error\")?")
PLAIN = drawn_picture("neighbour", canvas=(32, 32))


def request(path: str, body: bytes, kind: str = "application/json", *headers: str) -> bytes:
    """A request with its length; `headers` are whole lines."""
    lines = [f"POST {path} HTTP/1.1", "host: siglit", f"content-type: {kind}", *headers]
    head = "\r\n".join([*lines, f"content-length: {len(body)}", "", ""])
    return head.encode("utf-8", "surrogateescape") + body


def last(*parts: bytes) -> bytes:
    """Requests in a row, after which the server may close."""
    return b"".join(parts) + b"GET /livez HTTP/1.1\r\nhost: siglit\r\nconnection: close\r\n\r\n"


def pipelined(rng: Random) -> bytes:
    """Requests in a row, good ones and bad ones, with lengths and codings that do not agree."""
    good = request(TEXT, json.dumps({"text": f"in a row {rng.randrange(50)}"}).encode())
    others = (
        good,
        b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n",
        b"HEAD /info HTTP/1.1\r\nhost: a\r\n\r\n",
        request(TEXT, b"{", "application/json"),
        request("/nowhere", b"x" * rng.randrange(99)),
        request(TEXT, b"{}", "application/json", "expect: 100-continue"),
        request(TEXT, b'{"text":"a"}', "application/json", "connection: Upgrade", "upgrade: h2c"),
        request(TEXT, b"2\r\n{}\r\n0\r\n\r\n", "application/json", "transfer-encoding: chunked"),
        b"POST /embed_text HTTP/1.1\r\nhost: a\r\ncontent-length: +2\r\n\r\n{}",
        b"POST /embed_text HTTP/1.0\r\n\r\n{}",
        b"\r\n" * rng.randrange(4),
        rng.randbytes(rng.randrange(1, 60)),
        good[: rng.randrange(len(good))],
    )
    return last(*rng.choices(others, k=rng.randint(1, 12)))


def picture(rng: Random) -> bytes:
    """Formats and how many chunks, segments, scans and frames they have, in a raw body."""
    makers = (_jpeg, _png, _gif, _webp, _bmp, _tiff, _ico)
    return last(request(IMAGE, rng.choice(makers)(rng), "application/octet-stream"))


def _jpeg(rng: Random) -> bytes:
    low, high = rng.choice(((1, 63), (0, 0), (1, 1), (60, 63)))
    return scanned_jpeg(
        rng.choice((0, 1, 20, 100, 2000)),
        side=rng.choice((1, 8, 64, 1000)),
        band=(low, high, rng.choice((0x00, 0x10, 0x01, 0x21, 0xD0))),
        restarts=rng.random() < 0.3,
        note=rng.randbytes(rng.randrange(200)),
    )


def _png(rng: Random) -> bytes:
    side, depth = rng.choice((1, 16, 200)), rng.choice((1, 2, 4, 8, 16))
    colour, interlaced = rng.choice((0, 2, 3, 4, 6)), rng.choice((0, 0, 1))
    data = zlib.compress(bytes((1 + side * 8) * side))
    extras = (
        (b"tEXt", b"a\0b"), (b"eXIf", rng.randbytes(60)),
        (b"PLTE", bytes(3 * rng.choice((1, 256, 300)))),
        (b"zTXt", b"a\0\0" + zlib.compress(bytes(rng.choice((10, 2_000_000))))),
        (b"iCCP", b"a\0\0" + zlib.compress(bytes(3_000_000))),
        (b"iTXt", b"a\0\1\0\0\0" + zlib.compress(b"b" * 2_000_000)),
        (b"acTL", struct.pack(">II", rng.choice((0, 1, 1 << 31)), 0)),
    )  # fmt: skip
    extra = rng.choice((b"", *(chunk(name, body) for name, body in extras)))
    parts = rng.choice((1, 1, 500))
    step = len(data) // parts + 1
    pieces = [chunk(b"IDAT", data[i : i + step]) for i in range(0, len(data), step)]
    many = [extra] * rng.choice((1, 1, 3, 300 if len(extra) < 100 else 3))
    return png(side, depth, colour, *many, *pieces, interlaced=interlaced)


def _gif(rng: Random) -> bytes:
    side = rng.choice((1, 50, 3000, 65535))
    return gif(side, rng.choice((0, 1, 100, 2000)), b"!\xfe\x02ab\x00") + b";" * rng.randrange(2)


def _webp(rng: Random) -> bytes:
    size = (rng.choice((1, 60)), rng.choice((1, 60)))
    frames = [Image.new("RGBA", size, (n, 0, 0, n)) for n in range(rng.choice((1, 2, 20)))]
    how = {"save_all": True, "append_images": frames[1:], "lossless": True}
    data = bytearray(encoded(frames[0], "WEBP", **how))
    if rng.random() < 0.5:
        data[rng.randrange(12, len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _bmp(rng: Random) -> bytes:
    data = bytearray(long_bmp(rng.choice((1, 300, 70_000, 60_000_000))))
    data[rng.randrange(14, 54)] = rng.randrange(256)
    return bytes(data) + rng.randbytes(rng.randrange(300))


def _tiff(rng: Random) -> bytes:
    many = rng.choice((0, 1, 400))
    entries = b"".join(
        struct.pack("<HHII", rng.choice((256, 257, 259, 273, 33550)), 4, 1, 1 << rng.randrange(31))
        for _ in range(many)
    )
    return b"II*\0" + struct.pack("<IH", 8, many) + entries + struct.pack("<I", 8)


def _ico(rng: Random) -> bytes:
    return b"\0\0\1\0" + struct.pack("<H", rng.choice((1, 500))) + rng.randbytes(99)


def structure(rng: Random) -> bytes:
    """JSON of odd shapes: dictionaries beside lists, deep and wide, keys twice, large numbers."""
    leaf: Any = rng.choice((None, 0, "a", [], {}, True, 1e308, "é" * 300, 2.0))
    for _ in range(rng.choice((0, 1, 3, 5, 60, 800))):
        leaf = {rng.choice("abc"): leaf} if rng.random() < 0.5 else [leaf]
    names = ("text", "texts", "input", "image", "images", "labels", "template", "dimensions", "x")
    body: Any = {rng.choice(names): leaf, rng.choice(names): [leaf, {"a": leaf}]}
    text = json.dumps(rng.choice((body, [body], dict.fromkeys(names, leaf))))
    if rng.random() < 0.3:
        text = text.replace("[", "[" * rng.choice((2, 1000)), 1)
    if rng.random() < 0.2:
        text = text[:-1] + ',"texts":' + "[" + "{}," * rng.choice((3, 30_000)) + "{}]}"
    path = rng.choice((TEXT, IMAGE, OPENAI, "/score", "/classify"))
    return last(request(path, text.encode()))


def multipart(rng: Random) -> bytes:
    """Parts with charsets, names, codings and headers of all kinds."""
    charset = rng.choice(
        ("utf-7", "utf-7", "utf-16", "idna", "rot13", "zlib", "x" * 99, "utf-8", "cp037")
    )
    name = rng.choice(("+2AA-", "+2AA-", "images", "dimensions", "\udcff", "a" * 5000, "\r\n"))
    disposition = f'content-disposition: form-data; name="{name}"'
    if rng.random() < 0.25:
        disposition += rng.choice(('; filename="a.png"', "; filename*=utf-7''%2B", ";;filename"))
    lines = [disposition, f"content-type: text/plain; charset={charset}"]
    if rng.random() < 0.2:
        lines *= 30
    head = "\r\n".join(lines).encode("utf-8", "surrogateescape")
    part = b"--x\r\n" + head + b"\r\n\r\n" + rng.choice((PLAIN, b"a", b"")) + b"\r\n"
    file = b'--x\r\ncontent-disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
    body = rng.choice((b"", file + PLAIN + b"\r\n")) + part * rng.choice((0, 1, 2, 300))
    body += rng.choice((b"--x--\r\n", b"--x--\r\n", b"--x--", b"--x", b""))
    kind = (
        f"multipart/form-data; boundary=x{rng.choice(('', *[f'; charset={charset}'] * 3, '; x'))}"
    )
    return last(request(IMAGE, body, kind))


def preference(rng: Random) -> bytes:
    """Accept and Cache-Control in spellings that are rare, twice, or wrong."""
    media = ("application/json", "application/octet-stream", "*/*", "image/png", "a", "", "text/*")
    weights = ("", ";q=0", ";q=1.000", "; Q=0.5", ";q=9", ";q=-1", ";q=", ";q=nan", ";a=b;q=0.1")
    accept = ",".join(rng.choice(media) + rng.choice(weights) for _ in range(rng.randint(1, 40)))
    caches = ("no-store", "NO-CACHE", "max-age=0", "max-age=-1", "no-store=x", "", ",,", "x" * 999)
    lines = [f"accept: {accept}"]
    lines += [f"cache-control: {rng.choice(caches)}" for _ in range(rng.randrange(4))]
    return last(request(TEXT, b'{"text": "a good one"}', "application/json", *lines))


def encoding(rng: Random) -> bytes:
    """Bodies in codings, base64 and marks that are announced rightly and wrongly."""
    text = json.dumps({"text": "a good one"}).encode()
    bomb = gzip.compress(bytes(rng.choice((100, 3_000_000))), mtime=0)
    packed = (gzip.compress(text, mtime=0), zlib.compress(text), bomb)
    bodies = (text, *packed, b"\xef\xbb\xbf" + text, PLAIN)
    named = rng.choice(("gzip", "deflate", "br", "identity", "gzip, gzip", "x", "", "GZIP"))
    letters = rng.choice(("é", "A", "=", "\n", "%", "\0", "A-_", "𝔸")) * rng.choice((1, 3, 5000))
    uri = rng.choice(("data:;base64,", "data:image/png;base64,", "", "DATA:a/b;x=y;base64,"))
    plain = base64.b64encode(PLAIN).decode()
    image = json.dumps({"image": uri + rng.choice((letters, plain, plain + letters))}).encode()
    if rng.random() < 0.5:
        return last(request(IMAGE, image))
    return last(request(TEXT, rng.choice(bodies), "application/json", f"content-encoding: {named}"))


MAKERS = (pipelined, picture, structure, multipart, preference, encoding)


def inputs(many: int, seed: int = 17) -> Iterator[tuple[str, bytes]]:
    """So many of each kind, as (kind, bytes on the wire); the same ones for the same seed."""
    rng = Random(seed)
    for _ in range(many):
        for maker in MAKERS:
            yield maker.__name__, maker(rng)


def faults(heard: bytes) -> list[str]:
    """What is wrong with the answers on a connection: a status, or an error of another form."""
    found = [(int(status), bool(error)) for status, error in _STATUS.findall(heard)]
    wrong = [f"{status}" for status, _ in found if not (status == 100 or 200 <= status < 500)]
    bare = [f"{status} in no shared form" for status, error in found if status >= 400 and not error]
    return wrong + bare if found else ["no answer"]


async def fuzz(stage: Stage, finding: Finding) -> None:
    """Seeded inputs of every attack's kind: each is answered with a 2xx or a 4xx, in time."""
    wrong: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    slowest: dict[str, float] = {}
    left = inputs(stage.of(840, 60))

    async def client(url: str) -> None:
        for kind, wire in left:
            end = await talk(url, pieces(wire), PATIENCE, SILENT)
            counted[kind] += 1
            slowest[kind] = max(end.last, slowest.get(kind, 0.0))
            wrong.update(f"{kind}: {what}: {wire[:200]!r}" for what in faults(end.heard))

    async with attacked(stage) as target:
        await asyncio.gather(*(client(target.server.url) for _ in range(CLIENTS)))
        for traffic in (target.texts, target.pictures):
            await traffic.once_each()
    judge(stage, finding, target)
    finding.must(not wrong, f"each 2xx or 4xx in the shared form: {wrong.most_common(5)}")
    late = {kind: round(seconds, 1) for kind, seconds in slowest.items() if seconds > SLOWEST}
    finding.timely(not late, f"each within {SLOWEST:.0f} s: {late}")
    kinds = ", ".join(f"{many} × {kind}, {slowest[kind]:.1f} s" for kind, many in counted.items())
    finding.note(f"{sum(counted.values())} inputs: {kinds} at most")
