"""A picture file without the parts that its pixels do not need, and with bounds on the rest.

Pillow walks over the parts of a file (segments, chunks, blocks, tags) in Python, one at a time,
and unpacks texts and profiles; a progressive JPEG may ask for the whole picture to be gone over
again in ten bytes. So a file is walked over here first, quickly and in bounded steps: what says how
the picture lies is kept aside, texts, profiles, thumbnails and further frames are left out, and
what would cost time without bytes is refused. The bounds are far from what encoders write.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from litapi.errors import ImageTooSlow, ImageUndecodable

MOST_PARTS = 1 << 16  # chunks of a PNG, strips of a TIFF, blocks before the first frame of a GIF
MOST_SEGMENTS = 4096  # of a JPEG, scans included; a colour profile alone may have 255
MOST_SCANS = 100  # of a JPEG; encoders write ten or so
SCANNED_PIXELS = 1_000_000_000  # scans times pixels: twenty scans of the largest picture
RLE_PIXELS = 10_000_000  # of a run-length BMP, which Pillow decodes in Python
RLE_BYTES = 4 << 20
SIDE_BYTES = 1 << 20  # of EXIF or XMP, unpacked

_SOS, _EOI = 0xDA, 0xD9
_NEXT_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])").search  # of those that have a length
_ASIDE = {*range(0xE0, 0xFF)}  # APPn, JPGn and comments
_COLOURS = (b"JFIF", b"Adob")  # of APPn, what says which colours the frame has
_XAP = b"http://ns.adobe.com/xap/1.0/\0"
_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
_XMP_TEXT, _EXIF_TEXT = b"XML:com.adobe.xmp", b"Raw profile type exif"
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])').search
_ORIENTATION = 0x0112
_WHOLE = {3: "H", 4: "I", 8: "h", 9: "i"}  # TIFF's types that may hold an orientation
_PLACES = {273, 279, 324, 325}  # the tags that say where strips or tiles lie, and how long they are
_TILE_SIDES = (322, 323)


@dataclass(slots=True)
class Skeleton:
    """What a decoder is given, and what was found beside it.

    `scans` is how often the decoder goes over the whole picture, `tile` the pixels of a tile where
    it may be larger than the picture. `exif` and `xmp` are empty where the file has none, or where
    the decoder itself hands them over.
    """

    data: bytes
    scans: int = 1
    tile: int = 0
    exif: bytes = b""
    xmp: bytes = b""


def skeleton(data: bytes, kind: str) -> Skeleton:
    """The parts of a file of that format that its pixels need.

    Damage is left for the decoder to find. Raises ImageUndecodable for more parts than encoders
    write, ImageTooSlow for what takes long without having many bytes.
    """
    walk = _WALKS.get(kind)
    return walk(data) if walk else Skeleton(data)


# -- JPEG ------------------------------------------------------------------------------------------


def _jpeg(data: bytes) -> Skeleton:
    """The tables, the frame and the scans of the first picture."""
    made, kept, first, at = Skeleton(b"", scans=0), [data[:2]], 0, 2
    for _ in range(MOST_SEGMENTS):
        match = _NEXT_MARKER(data, at)
        if match is None or match[1][0] == _EOI:
            break
        marker, start, at = match[1][0], match.start(), match.end()
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
        if marker == _SOS:
            made.scans += 1
            first = first or start
        elif not first:
            _jpeg_segment(made, kept, marker, data[start:at])
    else:
        raise ImageUndecodable
    rest = data[first : match.end() if match else None] if first else b""
    made.data = b"".join((*kept, rest))
    return made


def _jpeg_segment(made: Skeleton, kept: list[bytes], marker: int, segment: bytes) -> None:
    if marker not in _ASIDE or segment[4:8] in _COLOURS:
        kept.append(segment)
    elif segment.startswith(b"Exif\0\0", 4) and len(made.exif) < SIDE_BYTES:
        made.exif += segment[10:]  # a block that found no room in one segment goes on in the next
    elif segment.startswith(_XAP, 4):
        made.xmp = segment[4 + len(_XAP) :]


def too_often(scans: int, pixels: int) -> bool:
    """Whether a JPEG asks for so many pixels to be gone over more often than encoders do."""
    return scans > MOST_SCANS or (scans > 1 and scans * pixels > SCANNED_PIXELS)


# -- PNG -------------------------------------------------------------------------------------------


def _png(data: bytes) -> Skeleton:
    """Header, palette, transparency and pixels. Colour profiles and gamma are not applied."""
    made, texts, kept, at = Skeleton(b""), dict[bytes, tuple[bytes, bytes]](), [data[:8]], 8
    for _ in range(MOST_PARTS):
        name, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if name in _CHUNKS:
            kept.append(data[at:end])
        elif name == b"eXIf":
            made.exif = data[at + 8 : end - 4]
        elif name in _TEXTS:
            key, _, text = data[at + 8 : end - 4].partition(b"\0")
            texts[key if key in (_XMP_TEXT, _EXIF_TEXT) else b""] = name, text
        if name == b"IEND" or end >= len(data):
            break
        at = end
    else:
        raise ImageUndecodable
    made.data = b"".join(kept)
    made.xmp = _unpacked(*texts.get(_XMP_TEXT, (b"", b"")))
    made.exif = made.exif or _from_hex(_unpacked(*texts.get(_EXIF_TEXT, (b"", b""))))
    return made


def _unpacked(name: bytes, text: bytes) -> bytes:
    """The text behind the key of a text chunk; empty where it is damaged or too large."""
    packed = name == b"zTXt" and text[:1] == b"\0"
    if packed:
        text = text[1:]
    elif name == b"iTXt":
        packed = text[:2] == b"\1\0"
        text = text[2:].split(b"\0", 2)[-1]
    if not packed:
        return text
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(text, SIDE_BYTES)
    except zlib.error:
        return b""
    return b"" if unpacker.unconsumed_tail else text


def _from_hex(text: bytes) -> bytes:
    """The EXIF block in a text that ImageMagick wrote: a name, a length, and hexadecimal lines."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("latin-1"))
    except ValueError:
        return b""


# -- GIF, WebP, BMP, AVIF, TIFF --------------------------------------------------------------------


def _gif(data: bytes) -> Skeleton:
    """All but comments and what applications put before the first frame."""
    at = 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 128 else 0)
    kept = [data[:at]]
    for _ in range(MOST_PARTS):
        mark, start = data[at : at + 1], at
        if mark in (b",", b";", b""):
            return Skeleton(b"".join((*kept, data[at:])))
        at = _gif_blocks(data, at + 2) if mark == b"!" else at + 1
        if data[start : start + 2] == b"!\xf9":  # how the frame is shown
            kept.append(data[start:at])
    raise ImageUndecodable


def _gif_blocks(data: bytes, at: int) -> int:
    """Where the blocks that begin there end."""
    for _ in range(MOST_PARTS):
        size = data[at] if at < len(data) else 0
        at += 1 + size
        if not size:
            return at
    raise ImageUndecodable


def _bmp(data: bytes) -> Skeleton:
    """As it is. Raises ImageTooSlow for a large one in run lengths."""
    if len(data) >= 34 and int.from_bytes(data[14:18], "little") >= 40:
        width, height, _, _, packed = struct.unpack_from("<iiHHI", data, 18)
        large = len(data) > RLE_BYTES or abs(width * height) > RLE_PIXELS
        if packed in (1, 2) and large:
            raise ImageTooSlow
    return Skeleton(data)


def _webp(data: bytes) -> Skeleton:
    """As it is. Raises ImageUndecodable for too many chunks: each costs more than its bytes."""
    at = 12
    for _ in range(MOST_PARTS):
        if at + 8 > len(data):
            return Skeleton(data)
        at += 8 + (int.from_bytes(data[at + 4 : at + 8], "little") + 1 & ~1)
    raise ImageUndecodable


def _avif(data: bytes) -> Skeleton:
    """Under the brand that Pillow looks for, whichever of its brands the file names first."""
    return Skeleton(b"".join((data[:8], b"avif", data[12:])))


def _tiff(data: bytes) -> Skeleton:
    """As it is, with the size of its tiles. Raises ImageTooSlow for too many of them."""
    made, sides = Skeleton(data), dict.fromkeys(_TILE_SIDES, 0)
    for tag, _, count, value in _entries(data):
        if tag in _PLACES and count > MOST_PARTS:
            raise ImageTooSlow
        if tag in sides:
            sides[tag] = value
    made.tile = sides[_TILE_SIDES[0]] * sides[_TILE_SIDES[1]]
    return made


def _entries(block: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Tag, type, count and first value of what the first directory of a TIFF block has."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 16:
        return
    big = 43 in block[2:4]
    head, entry = ("Q", "HHQ8s") if big else ("H", "HHI4s")
    start = struct.unpack_from(order + ("Q" if big else "I"), block, 8 if big else 4)[0]
    if start + 8 > len(block):
        return
    (count,) = struct.unpack_from(order + head, block, start)
    start += struct.calcsize("<" + head)
    size = struct.calcsize("<" + entry)
    entries = block[start : start + size * min(count, 0xFFFF)]
    for tag, kind, number, value in struct.iter_unpack(
        order + entry, entries[: len(entries) // size * size]
    ):
        if kind in _WHOLE:
            yield tag, kind, number, struct.unpack_from(order + _WHOLE[kind], value)[0]
        else:
            yield tag, kind, number, int.from_bytes(value, "little" if order == "<" else "big")


# -- how a picture lies ----------------------------------------------------------------------------


def orientation(exif: bytes, xmp: bytes) -> int:
    """How the picture lies, 1 to 8 in a sound file: as its EXIF says, else as its XMP does."""
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    found = None
    for tag, kind, count, value in _entries(exif):
        inline = kind in _WHOLE and 0 < count * struct.calcsize(_WHOLE[kind]) <= 4
        if tag == _ORIENTATION and inline:  # of two values the first counts
            found = value
    if found is None and (match := _XMP_ORIENTATION(xmp)):
        found = int(match[1])
    return 1 if found is None else found


_WALKS: dict[str, Callable[[bytes], Skeleton]] = {
    "jpeg": _jpeg, "png": _png, "gif": _gif, "webp": _webp, "bmp": _bmp, "tiff": _tiff,
    "avif": _avif,
}  # fmt: skip
