import io
import struct
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from transformers.image_transforms import convert_to_rgb

from bench.faults.hostile import mutated
from litapi import errors
from litapi.model.picture import BAND, FORMATS, TRANSPOSED, PicturePolicy, PictureReader, sniff
from litapi.model.pixel_budget import PixelBudget
from litapi.model.skeleton import MOST_PARTS, MOST_SCANS, MOST_SEGMENTS, skeleton
from litapi.model.skeleton import orientation as lies
from tests.support.command import python

# pytest lays its own warning filters over the reader's, which are tested in a process instead.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

READER = PictureReader()
EVERYTHING = PictureReader(PicturePolicy(formats=FORMATS))


def scene(width: int = 40, height: int = 30, mode: str = "RGB") -> Image.Image:
    """A picture whose four corners differ, so that no turning goes unseen."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    levels = np.stack([across, down, (across + down) / 2], axis=-1).astype(np.uint8)
    return Image.fromarray(levels).convert(mode)


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def orientation_of(value: int) -> bytes:
    """An EXIF block that names it."""
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


def refused(data: bytes, reader: PictureReader = READER) -> type[errors.ItemError]:
    with pytest.raises(errors.ItemError) as caught:
        reader.read(data)
    return type(caught.value)


def good_pictures() -> dict[str, bytes]:
    """One sound file of every format and of the forms that take other ways through a decoder."""
    picture, frames = scene(), [scene().rotate(turn) for turn in (90, 180)]
    return {
        "jpeg": encoded(picture, "JPEG", quality=80),
        "progressive": encoded(picture, "JPEG", progressive=True),
        "cmyk": encoded(scene(mode="CMYK"), "JPEG"),
        "exif": encoded(picture, "JPEG", exif=orientation_of(6)),
        "png": encoded(picture, "PNG"),
        "png-palette": encoded(scene(mode="P"), "PNG", transparency=3),
        "png-16": encoded(Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40)), "PNG"),
        "apng": encoded(picture, "PNG", save_all=True, append_images=frames),
        "webp": encoded(picture, "WEBP"),
        "webp-lossless": encoded(scene(mode="RGBA"), "WEBP", lossless=True),
        "gif": encoded(picture, "GIF", save_all=True, append_images=frames),
        "bmp": encoded(picture, "BMP"),
        "avif": encoded(picture, "AVIF"),
        "tiff": encoded(picture, "TIFF", compression="tiff_lzw"),
    }


@pytest.mark.parametrize("name", sorted(good_pictures()))
def test_the_first_bytes_name_the_format(name: str) -> None:
    """Every sound file is recognised by its content alone."""
    kinds = {"progressive": "jpeg", "cmyk": "jpeg", "exif": "jpeg", "apng": "png"}
    assert sniff(good_pictures()[name]) == kinds.get(name, name.split("-")[0])


@pytest.mark.parametrize(
    "data",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<!doctype html><p>no picture</p>",
        b"%PDF-1.7\n", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\0\0\0\x18ftypheic\0\0\0\0", b"8BPS\0\1",
        b"SIMPLE  =                    T", b"\x00", bytes(range(256)),
    ],
)  # fmt: skip
def test_what_is_no_picture_of_a_known_format_is_refused_unopened(data: bytes) -> None:
    """SVG, HTML, PDF, EPS, HEIC, PSD, FITS and noise reach no decoder."""
    assert refused(data, EVERYTHING) is errors.ImageFormatUnsupported


@pytest.mark.parametrize("kind", ["AVIF", "TIFF"])
def test_avif_and_tiff_are_read_only_where_the_policy_says_so(kind: str) -> None:
    """The defaults read five formats; the other two are opted into."""
    assert refused(encoded(scene(), kind)) is errors.ImageFormatUnsupported
    assert EVERYTHING.read(encoded(scene(), kind)).size == (40, 30)


def test_a_picture_of_too_many_bytes_or_pixels_or_of_none_is_refused() -> None:
    """Both limits are inclusive; a misspelt format is told before any request."""
    assert refused(b"") is errors.ImageEmpty
    data = encoded(scene(), "PNG")
    exact = PictureReader(PicturePolicy(max_bytes=len(data)))
    assert exact.read(data).size == (40, 30)
    assert refused(data + b"\0", exact) is errors.ImageTooLarge
    exact = PictureReader(PicturePolicy(max_pixels=1200))
    assert exact.read(encoded(scene(40, 30), "PNG")).size == (40, 30)
    assert refused(encoded(scene(41, 30), "PNG"), exact) is errors.ImageTooManyPixels
    with pytest.raises(ValueError, match="jpg is not an image format"):
        PictureReader(PicturePolicy(formats=("jpg",)))


def png(width: int, height: int, data: bytes, *extra: bytes) -> bytes:
    """A PNG by hand, whose header may promise anything."""

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [7072, 9000, 25_000, 2**31 - 1])
def test_a_decompression_bomb_is_refused_from_its_header(side: int) -> None:
    """Pixels are counted before one is decoded: below Pillow's own limits, between and above.

    A TIFF of one pixel may have a tile of a gigabyte.
    """
    assert refused(tiff_with(1, tile=40_000), EVERYTHING) is errors.ImageTooManyPixels
    assert refused(png(side, side, zlib.compress(b"\0"))) is errors.ImageTooManyPixels
    jpeg = bytearray(encoded(scene(), "JPEG"))
    start = jpeg.index(b"\xff\xc0") + 5
    jpeg[start : start + 4] = struct.pack(">HH", *[min(side, 65_500)] * 2)
    assert refused(bytes(jpeg)) is errors.ImageTooManyPixels


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@pytest.mark.parametrize(
    ("name", "head"),
    [
        (b"zTXt", b"bomb\0\0"),
        (b"zTXt", b"Raw profile type exif\0\0"),
        (b"iTXt", b"bomb\0\1\0\0\0"),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0"),
        (b"iCCP", b"bomb\0\0"),
    ],
)
def test_compressed_text_and_profiles_of_a_png_are_not_unpacked(name: bytes, head: bytes) -> None:
    """The pixels do not need them: 50 MB behind a comment or a profile harm nothing."""
    bomb = chunk(name, head + zlib.compress(bytes(50 << 20)))
    tracemalloc.start()
    try:
        read = READER.read(png(4, 4, zlib.compress(bytes(20)), *[bomb] * 5))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read.size == (4, 4)
    assert peak < 4 << 20


@pytest.mark.parametrize("name", sorted(set(good_pictures()) - {"gif", "apng"}))
def test_a_picture_cut_short_is_refused(name: str) -> None:
    """Half a file is never served as a picture with a grey half."""
    data = good_pictures()[name]
    assert refused(data[: len(data) // 2], EVERYTHING) is errors.ImageUndecodable


def test_big_endian_sixteen_bit_tiff_is_scaled_too() -> None:
    """The byte order of the file does not show."""
    ramp = np.linspace(0, 65_535, 1200).astype(np.uint16).reshape(30, 40)
    picture = Image.frombytes("I;16B", (40, 30), ramp.astype(">u2").tobytes())
    read = np.asarray(EVERYTHING.read(encoded(picture, "TIFF")))
    assert np.array_equal(read[..., 1], ramp >> 8)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_of_an_unknown_range_are_refused(dtype: type[np.generic]) -> None:
    """Floats and 32-bit integers would come out black; no scale fits them all."""
    picture = Image.fromarray(np.ones((30, 40), dtype))
    assert refused(encoded(picture, "TIFF"), EVERYTHING) is errors.ImageModeUnsupported


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "RGB"])
@pytest.mark.parametrize("clear", [False, True])
def test_transparency_is_composited_as_transformers_does(mode: str, clear: bool) -> None:
    """Equal to the bit to convert_to_rgb of transformers, for alpha, palettes and PNG keys."""
    picture = scene(mode="RGBA" if mode in ALPHA else mode)
    if mode in ALPHA and clear:
        picture.putalpha(scene(mode="L"))
    assert_composited(picture.convert(mode), clear)


ALPHA = ("RGBA", "LA")
CLEAR: dict[str, Any] = {"P": 5, "L": 100, "RGB": (0, 0, 0)}


def assert_composited(picture: Image.Image, clear: bool) -> None:
    """As a PNG, in which one colour is transparent, it is what transformers makes of it."""
    options = {"transparency": CLEAR[picture.mode]} if clear and picture.mode in CLEAR else {}
    data = encoded(picture, "PNG", compress_level=1, **options)
    expected = convert_to_rgb(Image.open(io.BytesIO(data)), return_numpy=True)
    assert np.array_equal(np.asarray(READER.read(data)), expected)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "L", "1", "P", "RGBX"])
def test_other_colour_models_are_converted(mode: str) -> None:
    """What is not RGB is converted as Pillow converts it."""
    picture = scene(mode="RGB" if mode == "LAB" else mode)
    if mode == "LAB":
        picture = Image.merge("LAB", scene().split())
    data = encoded(picture, "TIFF")
    expected = Image.open(io.BytesIO(data)).convert("RGB")
    assert EVERYTHING.read(data).tobytes() == expected.tobytes()


def test_a_jpeg_of_several_pictures_is_its_first() -> None:
    """Phones write such files and call them .jpg."""
    data = encoded(scene(), "MPO", save_all=True, append_images=[scene().rotate(180)])
    assert READER.read(data).tobytes() == READER.read(encoded(scene(), "JPEG")).tobytes()


def test_draft_decodes_a_jpeg_smaller_but_never_below_the_side_asked_for() -> None:
    """Where the policy allows it, a large JPEG is decoded at a fraction; a grey one stays grey."""
    data = encoded(scene(1600, 1200), "JPEG")
    drafting = PictureReader(PicturePolicy(draft=True))
    assert drafting.read(data, draft_side=250).size == (400, 300)
    assert drafting.read(data, draft_side=700).size == (1600, 1200)
    assert drafting.read(data).size == READER.read(data, draft_side=10).size == (1600, 1200)
    grey = np.asarray(drafting.read(encoded(scene(800, 600, "L"), "JPEG"), draft_side=100))
    assert 100 <= min(grey.shape[:2]) < 600
    assert np.array_equal(grey[..., 0], grey[..., 2])


def test_a_picture_of_any_shape_is_read() -> None:
    """The least side is one pixel, no aspect ratio is refused; a header may promise nothing."""
    for size in ((1, 1), (1, 500), (500, 1), (20_000, 10)):
        assert READER.read(encoded(scene(*size), "PNG")).size == size
    data = bytearray(encoded(scene(), "BMP"))
    data[18:22] = bytes(4)
    assert refused(bytes(data)) is errors.ImageUndecodable


def test_many_threads_may_read_with_one_reader() -> None:
    """Concurrent reads of all formats give what single reads give."""
    files = list(good_pictures().values()) * 20
    alone = [EVERYTHING.read(data).tobytes() for data in files]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda data: EVERYTHING.read(data).tobytes(), files))
    assert together == alone


QUIET = """
import logging, sys
from pathlib import Path
logging.basicConfig(level=logging.INFO)
from litapi.errors import ItemError
from litapi.model.picture import FORMATS, PicturePolicy, PictureReader
reader = PictureReader(PicturePolicy(formats=FORMATS, max_pixels=10**8))
for file in sorted(Path(sys.argv[1]).iterdir()):
    try: print(reader.read(file.read_bytes()).size)
    except ItemError as error: print(error.code)
logging.getLogger('PIL.TiffImagePlugin').warning('as Pillow writes it')
"""


def test_damaged_pictures_write_nothing(tmp_path: Path) -> None:
    """Neither Pillow to the log, nor libtiff to the standard error, in any thread."""
    exif = b"Exif\0\0II*\0\xff\xff\xff\xff garbage"
    (tmp_path / "a.jpg").write_bytes(encoded(scene(), "JPEG", exif=exif))
    (tmp_path / "b.png").write_bytes(png(9999, 9999, zlib.compress(b"x")))  # Pillow would warn
    random, good = Random(5), encoded(scene(), "TIFF", compression="tiff_lzw")
    for number in range(300):
        (tmp_path / f"c{number}.tiff").write_bytes(mutated(good, random))
    done = python(QUIET, tmp_path)
    assert done.stderr == ""
    assert done.stdout.splitlines()[:2] == ["(40, 30)", "image_undecodable"]
    assert len(done.stdout.splitlines()) == 302


def segment(marker: int, body: bytes) -> bytes:
    """A part of a JPEG."""
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def scanned(side: int, scans: int) -> bytes:
    """A progressive JPEG of one colour with so many scans, all but the first of ten bytes."""
    table, one = bytes([1] + [0] * 15) + b"\0", b"\x01\x01\x00"
    head = segment(0xDB, b"\0" + bytes([1] * 64))
    head += segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\x01\x11\x00")
    head += segment(0xC4, b"\x00" + table) + segment(0xC4, b"\x10" + table)
    first, more = segment(0xDA, one + b"\0\0\0"), segment(0xDA, one + b"\x01\x3f\0")
    return b"\xff\xd8" + head + first + more * (scans - 1) + b"\xff\xd9"


@pytest.mark.parametrize(
    ("side", "scans"), [(7000, 701), (7000, 22), (64, MOST_SCANS + 1), (64, MOST_SEGMENTS - 20)]
)
def test_a_jpeg_that_asks_to_be_gone_over_too_often_is_refused_undecoded(
    side: int, scans: int
) -> None:
    """Each scan of ten bytes costs a walk over the whole picture."""
    assert refused(scanned(side, scans)) is errors.ImageTooSlow


@pytest.mark.parametrize(("side", "scans"), [(7000, 10), (3000, MOST_SCANS), (64, MOST_SCANS)])
def test_as_many_scans_as_encoders_write_are_read(side: int, scans: int) -> None:
    """Ten for the largest picture, more for smaller ones."""
    assert READER.read(scanned(side, scans)).size == (side, side)


def test_the_scans_of_thumbnails_and_of_a_second_picture_do_not_count() -> None:
    """Only what a decoder would go over."""
    inner = scanned(64, 90)
    data = scanned(64, 90)
    beside = segment(0xE1, inner) + segment(0xED, inner)
    assert READER.read(data[:2] + beside + data[2:] + inner).size == (64, 64)


def rle(width: int, height: int, body: bytes, bits: int = 8) -> bytes:
    """A BMP in run lengths."""
    info = struct.pack("<IiiHHII", 40, width, height, 1, bits, 1 if bits == 8 else 2, len(body))
    palette = bytes(4 << bits)
    head = struct.pack("<IHHI", 54 + len(palette) + len(body), 0, 0, 54 + len(palette))
    return b"BM" + head + info + struct.pack("<iiII", 0, 0, 1 << bits, 0) + palette + body


@pytest.mark.parametrize(
    "data",
    [
        rle(50_000_000, 1, b"\1\0" + bytes(60)),
        rle(1, 50_000_000, b"\1\0" + bytes(60)),
        rle(50_000_000, -1, b"\1\0" + bytes(60)),
        rle(7000, 7000, b"\xff\0" * 100, bits=4),
        rle(1, 100, b"\xff\0" * (3 << 20)),
    ],
    ids=["wide", "high", "upside down", "four bits", "many runs"],
)
def test_a_large_bitmap_in_run_lengths_is_refused_undecoded(data: bytes) -> None:
    """Pillow decodes them in Python, run by run and pixel by pixel; a usual one is read."""
    assert refused(data) is errors.ImageTooSlow
    assert READER.read(rle(8, 3, (b"\x08\x01\0\0" * 3) + b"\0\1")).size == (8, 3)


def gif_with(*blocks: bytes) -> bytes:
    """A GIF with so much before its first frame."""
    data = encoded(scene(mode="P"), "GIF")
    head = 13 + (3 << (data[10] & 7) + 1)
    return data[:head] + b"".join(blocks) + data[head:]


def tiff_with(count: int, tile: int = 16) -> bytes:
    """The head of a TIFF with so many strips, or with a tile of that side."""
    tags = [(256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (322, tile), (323, tile)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    entries += struct.pack("<HHII", 273, 4, count, 8) + struct.pack("<HHII", 279, 4, count, 8)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 9) + entries + bytes(4)


MANY = MOST_PARTS + 1
TOO_MANY = (errors.ImageUndecodable, errors.ImageTooSlow)
FULL_OF_PARTS = {
    "jpeg comments": lambda: b"\xff\xd8" + segment(0xFE, b"") * MANY + scanned(8, 1)[2:],
    "jpeg exif": lambda: b"\xff\xd8" + segment(0xE1, b"Exif\0\0a") * MANY + scanned(8, 1)[2:],
    "jpeg tables": lambda: b"\xff\xd8" + segment(0xC4, bytes(17)) * MANY + scanned(8, 1)[2:],
    "png pixels": lambda: png(1, 1, b"", chunk(b"IDAT", b"") * MANY),
    "png text": lambda: png(1, 1, zlib.compress(b"\0\0"), chunk(b"tEXt", b"a\0") * MANY),
    "gif extensions": lambda: gif_with(b"!\xf9\x04\0\0\0\0\0" * MANY),
    "gif comment": lambda: gif_with(b"!\xfe", b"\1a" * MANY, b"\0"),
    "webp": lambda: encoded(scene(), "WEBP") + b"junk\0\0\0\0" * MANY,
    "tiff": lambda: tiff_with(MANY),
}


@pytest.mark.parametrize("name", FULL_OF_PARTS)
def test_a_file_of_too_many_parts_is_refused_before_they_are_walked_over(name: str) -> None:
    """Each part costs a decoder's Python more than its few bytes tell; filling costs nothing."""
    jpeg = encoded(scene(), "JPEG")
    assert READER.read(jpeg[:2] + b"\xff" * (10 << 20) + jpeg[2:]).size == (40, 30)
    tracemalloc.start()
    try:
        assert refused(FULL_OF_PARTS[name](), EVERYTHING) in TOO_MANY
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_what_is_left_out_of_a_file_changes_no_pixel() -> None:
    """Whatever format: the picture is the one that Pillow alone gives."""
    for name, data in good_pictures().items():
        expected = convert_to_rgb(
            ImageOps.exif_transpose(Image.open(io.BytesIO(data))), return_numpy=True
        )
        if name != "png-16":
            assert np.array_equal(np.asarray(EVERYTHING.read(data)), expected), name


def test_text_profiles_and_previews_do_not_reach_the_decoder() -> None:
    """What stays of the file is what the pixels need."""
    beside = encoded(scene(), "JPEG", exif=orientation_of(6), comment=b"c" * 999, icc_profile=b"i")
    assert len(skeleton(beside, "jpeg").data) < len(beside) - 999
    data = encoded(scene(), "PNG")
    assert (
        skeleton(png_beside(data, chunk(b"tEXt", b"a\0b"), chunk(b"tIME", b"")), "png").data == data
    )


def png_beside(data: bytes, *chunks: bytes) -> bytes:
    """A PNG with more chunks after its header."""
    return data[:33] + b"".join(chunks) + data[33:]


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize(
    "more",
    [
        chunk(b"eXIf", orientation_of(6)[6:]),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
        chunk(
            b"zTXt",
            b"Raw profile type exif\0\0"
            + zlib.compress(b"\nexif\n      32\n" + orientation_of(6).hex().encode() + b"\n"),
        ),
    ],
    ids=["eXIf", "XMP", "packed XMP", "ImageMagick"],
)
def test_how_a_png_lies_is_found_where_pillow_finds_it(more: bytes) -> None:
    """In its EXIF chunk, or in the texts that stand for it; whatever else those say is left out."""
    data = png_beside(encoded(scene(), "PNG"), more)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert expected.size == (30, 40)
    assert READER.read(data).tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("value", range(1, 9))
def test_how_a_picture_lies_is_read_from_its_exif_in_every_format(kind: str, value: int) -> None:
    """As Pillow itself turns it."""
    data = encoded(scene(), kind, exif=orientation_of(value))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert EVERYTHING.read(data).tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_how_a_picture_lies_is_read_from_its_xmp_where_it_has_no_exif(kind: str) -> None:
    """Other formats than PNG keep it as it is."""
    data = encoded(scene(), kind, xmp=XMP)
    assert READER.read(data).size == (30, 40)


def test_an_exif_of_any_form_says_what_pillow_reads_from_it() -> None:
    """Both byte orders, other types and counts, entries that lie, blocks that are cut."""
    random = Random(7)
    for _ in range(2_000):
        order = random.choice("<>")
        kind, count = random.choice((1, 3, 3, 3, 4, 5, 7, 8, 9, 11)), random.choice((1, 1, 1, 2, 0))
        count = 1 if kind not in (3, 8) else count  # the others lie elsewhere
        value = struct.pack(order + ("H2x" if kind in (3, 8) else "I"), random.randrange(9))
        tag = random.choice((0x0112, 0x0112, 0x0110))
        block = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 1)
        block += struct.pack(order + "HHI", tag, kind, count) + value + bytes(4)
        block = b"Exif\0\0" + block[: random.choice((len(block), random.randrange(len(block))))]
        assert TRANSPOSED.get(lies(block, b"")) == TRANSPOSED.get(_as_pillow(block)), block


def _as_pillow(block: bytes) -> int:
    exif = Image.Exif()
    try:
        exif.load(block)
        found = exif.get(0x0112, 1)
    except Exception:
        return 1
    return found if isinstance(found, int) else 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
def test_a_picture_that_is_converted_by_bands_is_as_if_at_once(mode: str) -> None:
    """Larger than a band, with and without transparent parts, to the bit."""
    picture = scene(1200, BAND // 1000, "RGBA" if mode in ALPHA else mode)
    if mode in ALPHA:
        alpha = np.full((picture.height, picture.width), 255, np.uint8)
        alpha[::3, : picture.width // 2] = 100  # and its lower rows opaque
        alpha[900:] = 255
        picture.putalpha(Image.fromarray(alpha))
    assert_composited(picture.convert(mode), clear=True)


def test_sixteen_bits_by_bands_are_as_if_at_once() -> None:
    """Larger than a band, with a level that is transparent."""
    levels = np.arange(1100 * 1000, dtype=np.uint32).astype(np.uint16).reshape(1100, 1000)
    data = encoded(Image.fromarray(levels), "PNG", compress_level=1, transparency=300)
    expected = np.where(levels == 300, 255, levels >> 8)
    assert np.array_equal(np.asarray(READER.read(data))[..., 0], expected)


HEAVY: dict[str, tuple[str, str, dict[str, Any]]] = {
    "png-rgba": ("RGBA", "PNG", {"compress_level": 1}),
    "png-palette": ("P", "PNG", {"transparency": 3}),
    "png-grey-alpha": ("LA", "PNG", {"compress_level": 1}),
    "png-turned": ("RGB", "PNG", {"exif": orientation_of(6)}),
    "jpeg": ("RGB", "JPEG", {}),
    "jpeg-turned": ("RGB", "JPEG", {"exif": orientation_of(6)}),
    "jpeg-progressive": (
        "RGB", "JPEG", {"progressive": True, "subsampling": 0},
    ),
    "jpeg-cmyk": ("CMYK", "JPEG", {"progressive": True}),
    "webp": ("RGB", "WEBP", {"method": 0}),
    "webp-lossless": ("RGBA", "WEBP", {"lossless": True, "method": 0}),
    "gif": ("P", "GIF", {}),
    "bmp": ("RGB", "BMP", {}),
    "avif": ("RGBA", "AVIF", {"speed": 10, "subsampling": "4:4:4"}),
    "tiff": ("RGB", "TIFF", {"compression": "tiff_lzw"}),
    "high": ("LA", "PNG", {"compress_level": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", HEAVY)
def test_a_picture_takes_no_more_memory_than_is_counted_for_it(name: str, tmp_path: Path) -> None:
    """The peak of a process of its own stays within what the budget holds, whatever the format."""
    mode, kind, options = HEAVY[name]
    picture = scene(*{"bmp": (2000, 2500), "high": (1, 2_000_000)}.get(name, (3000, 2500)), mode)
    file = tmp_path / "picture"
    file.write_bytes(encoded(picture, kind, **options))
    code = (
        "import sys; from litapi.model.picture import *\n"
        "class Seen(PixelBudget):\n"
        "    def hold(self, pixels, size=0):\n"
        "        self.seen = size\n"
        "        return super().hold(pixels, size)\n"
        "def peak(): return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
        "budget = Seen(10**9)\n"
        "reader = PictureReader(PicturePolicy(formats=FORMATS), budget)\n"
        "data = open(sys.argv[1], 'rb').read()\n"
        "reader.read(open(sys.argv[2], 'rb').read())\n"
        "before = peak(); size = reader.read(data).size\n"
        "print(peak() - before, budget.seen // 1024)\n"
    )
    small = tmp_path / "small"
    small.write_bytes(encoded(picture.crop((0, 0, 1, 1)), kind))
    done = python(code, file, small)
    taken, counted = map(int, done.stdout.split())
    assert taken <= counted + 8 * 1024, f"{taken} KB taken, {counted} KB counted"
    assert counted <= 3 * taken + 8 * 1024


def test_a_picture_that_takes_more_memory_than_there_is_for_one_is_refused() -> None:
    """Pixels within the limit are not enough: this format takes four times as much for each."""
    reader = PictureReader(PicturePolicy(), PixelBudget(10**9, most_bytes=30 << 20))
    assert reader.read(encoded(scene(1500, 1500), "JPEG")).size == (1500, 1500)
    assert refused(encoded(scene(1500, 1500), "WEBP", method=0), reader) is errors.ImageTooHeavy


@pytest.mark.parametrize("major", [b"mif1", b"msf1", b"miaf", b"MA1B", b"avis"])
def test_avif_is_known_by_any_of_its_brands(major: bytes) -> None:
    """The format may be among the compatible brands, as HEIC is; no word behind them counts."""
    data = bytearray(encoded(scene(), "AVIF"))
    data[8:12] = major
    assert b"avif" in data[16:40]
    assert EVERYTHING.read(bytes(data)).size == (40, 30)
    assert refused(bytes(data)) is errors.ImageFormatUnsupported
    head = b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic"
    for other in (head, head + b"avif" * 9):
        assert refused(other, EVERYTHING) is errors.ImageFormatUnsupported


def hostile(random: Random) -> bytes:
    """A sound file whose counts, sizes and parts were changed where they cost the most."""
    data = bytearray(random.choice(list(GOOD.values())))
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(data))
        match random.randrange(5):
            case 0:  # a size or a count in a header
                at = random.randrange(8, min(64, len(data) - 4))
                big = random.choice((0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 50_000_000, 7000, 0))
                data[at : at + 4] = struct.pack(random.choice("<>") + "I", big)
            case 1:  # a marker, a chunk or an extension more, many times
                part = random.choice(PARTS)
                data[at:at] = part * random.choice((1, 50, 5_000))
            case 2:  # a piece over and over
                piece = bytes(data[at : at + random.randrange(1, 60)])
                data[at:at] = piece * random.choice((2, 300))
            case 3:
                data[at] ^= 1 << random.randrange(8)
            case _:
                del data[at : at + random.randrange(1, 40)]
    return bytes(data)


GOOD = good_pictures()
PARTS = (
    segment(0xDA, b"\1\1\0\1\x3f\0"), segment(0xE1, b"Exif\0\0a"), segment(0xFE, b"c"),
    chunk(b"IDAT", b""), chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 20))),
    chunk(b"fdAT", bytes(9)), b"!\xfe\1a\0", b"!\xf9\4\0\0\0\0\0", b"ANMF\0\0\0\0",
    b"EXIF\4\0\0\0aaaa", b"\0\0\0\x08free", b"\xff\0" * 8,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_hostile_neighbours_of_sound_files_are_read_or_refused_within_bounds(seed: int) -> None:
    """2,000 seeded inputs: a picture or an ItemError, and little memory of Python's for any."""
    random = Random(seed)
    reader = PictureReader(
        PicturePolicy(formats=FORMATS, max_pixels=4_000_000), PixelBudget(10**7, 64 << 20)
    )
    tracemalloc.start()
    try:
        for number in range(500):
            good = random.choice(list(GOOD.values()))
            data = hostile(random) if number % 2 else mutated(good, random)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            try:
                outcome = reader.read(data).mode
            except errors.ItemError as error:
                outcome = "RGB" if error.status < 500 else error.code
            peak = tracemalloc.get_traced_memory()[1] - before
            assert outcome == "RGB", (seed, number)
            assert peak < (48 << 20) + 8 * len(data), (seed, number, len(data))
    finally:
        tracemalloc.stop()
