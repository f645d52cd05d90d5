import io
import struct
import subprocess
import sys
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

from litapi.errors import (
    ImageEmpty,
    ImageFormatUnsupported,
    ImageModeUnsupported,
    ImageTooLarge,
    ImageTooManyPixels,
    ImageUndecodable,
    ItemError,
)
from litapi.model.picture import FORMATS, PicturePolicy, PictureReader, sniff

# pytest lays its own warning filters over the reader's, which are tested in a process instead.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

READER = PictureReader()
EVERYTHING = PictureReader(PicturePolicy(formats=FORMATS))
ROOT = Path(__file__).parent.parent.parent


def scene(width: int = 40, height: int = 30, mode: str = "RGB") -> Image.Image:
    """A picture whose four corners differ, so that no turning goes unseen."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    levels = np.stack([across, down, (across + down) / 2], axis=-1).astype(np.uint8)
    return Image.fromarray(levels).convert(mode)


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def refused(data: bytes, reader: PictureReader = READER) -> type[ItemError]:
    with pytest.raises(ItemError) as caught:
        reader.read(data)
    return type(caught.value)


def good_pictures() -> dict[str, bytes]:
    """One sound file of every format and of the forms that take other ways through a decoder."""
    picture, frames = scene(), [scene().rotate(turn) for turn in (90, 180)]
    return {
        "jpeg": encoded(picture, "JPEG", quality=80),
        "progressive": encoded(picture, "JPEG", progressive=True),
        "cmyk": encoded(scene(mode="CMYK"), "JPEG"),
        "exif": encoded(picture, "JPEG", exif=orientation(6)),
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


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize("name", sorted(good_pictures()))
def test_every_format_becomes_an_rgb_picture(name: str) -> None:
    """Whatever the file stores, the model's input is RGB of the picture's size."""
    picture = EVERYTHING.read(good_pictures()[name])
    assert picture.mode == "RGB"
    assert picture.size == ((30, 40) if name == "exif" else (40, 30))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_a_lossless_picture_comes_back_as_it_was(kind: str) -> None:
    """Reading changes no pixel."""
    assert EVERYTHING.read(encoded(scene(), kind)).tobytes() == scene().tobytes()


@pytest.mark.parametrize("name", sorted(good_pictures()))
def test_the_first_bytes_name_the_format(name: str) -> None:
    """Every sound file is recognised by its content alone."""
    kinds = {"progressive": "jpeg", "cmyk": "jpeg", "exif": "jpeg", "apng": "png"}
    assert sniff(good_pictures()[name]) == kinds.get(name, name.split("-")[0])


@pytest.mark.parametrize(
    "data",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<!doctype html><p>no picture</p>",
        b"%PDF-1.7\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"\0\0\0\x18ftypheic\0\0\0\0",
        b"8BPS\0\1",
        b"SIMPLE  =                    T",
        b"\x00",
        bytes(range(256)),
    ],
)
def test_what_is_no_picture_of_a_known_format_is_refused_unopened(data: bytes) -> None:
    """SVG, HTML, PDF, EPS, HEIC, PSD, FITS and noise reach no decoder."""
    assert refused(data, EVERYTHING) is ImageFormatUnsupported


@pytest.mark.parametrize("kind", ["AVIF", "TIFF"])
def test_avif_and_tiff_are_read_only_where_the_policy_says_so(kind: str) -> None:
    """The defaults read five formats; the other two are opted into."""
    assert refused(encoded(scene(), kind)) is ImageFormatUnsupported
    assert EVERYTHING.read(encoded(scene(), kind)).size == (40, 30)


def test_a_format_left_out_of_the_policy_is_refused() -> None:
    """The policy can be narrowed as well."""
    assert refused(encoded(scene(), "PNG"), PictureReader(PicturePolicy(formats=("jpeg",)))) is (
        ImageFormatUnsupported
    )


def test_a_policy_with_an_unknown_format_is_refused_at_start() -> None:
    """A misspelt format is an error of the operator, told before any request."""
    with pytest.raises(ValueError, match="jpg is not an image format"):
        PictureReader(PicturePolicy(formats=("jpg",)))


def test_no_bytes_are_no_picture() -> None:
    """An empty upload has its own refusal."""
    assert refused(b"") is ImageEmpty


def test_a_picture_of_too_many_bytes_is_refused() -> None:
    """The byte limit is inclusive."""
    data = encoded(scene(), "PNG")
    exact = PictureReader(PicturePolicy(max_bytes=len(data)))
    assert exact.read(data).size == (40, 30)
    assert refused(data + b"\0", exact) is ImageTooLarge


def test_a_picture_of_too_many_pixels_is_refused() -> None:
    """The pixel limit is inclusive too."""
    exact = PictureReader(PicturePolicy(max_pixels=1200))
    assert exact.read(encoded(scene(40, 30), "PNG")).size == (40, 30)
    assert refused(encoded(scene(41, 30), "PNG"), exact) is ImageTooManyPixels


def png(width: int, height: int, data: bytes, *extra: bytes) -> bytes:
    """A PNG by hand, whose header may promise anything."""

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [7072, 9000, 25_000, 2**31 - 1])
def test_a_decompression_bomb_is_refused_from_its_header(side: int) -> None:
    """Pixels are counted before one is decoded: below Pillow's own limits, between and above."""
    assert refused(png(side, side, zlib.compress(b"\0"))) is ImageTooManyPixels


def test_a_jpeg_header_of_a_giant_is_refused() -> None:
    """65,500 × 65,500 pixels in a file of a few hundred bytes."""
    data = bytearray(encoded(scene(), "JPEG"))
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", 65_500, 65_500)
    assert refused(bytes(data)) is ImageTooManyPixels


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
    assert refused(data[: len(data) // 2], EVERYTHING) is ImageUndecodable


@pytest.mark.parametrize("value", range(1, 9))
def test_exif_orientation_is_applied(value: int) -> None:
    """All eight orientations come out as Pillow's own exif_transpose turns them."""
    data = encoded(scene(), "PNG", exif=orientation(value))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert READER.read(data).tobytes() == expected.tobytes()


def test_a_damaged_exif_says_nothing_about_orientation() -> None:
    """The pixels are sound, so the picture is read, as it lies."""
    data = encoded(scene(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert READER.read(data).size == (40, 30)


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    """A 16-bit ramp keeps its mean; Pillow alone would make it white."""
    ramp = np.linspace(0, 65_535, 1200).astype(np.uint16).reshape(30, 40)
    read = np.asarray(READER.read(encoded(Image.fromarray(ramp), "PNG")))
    assert np.array_equal(read[..., 0], ramp >> 8)
    assert abs(read.mean() - 127.5) < 1


def test_big_endian_sixteen_bit_tiff_is_scaled_too() -> None:
    """The byte order of the file does not show."""
    ramp = np.linspace(0, 65_535, 1200).astype(np.uint16).reshape(30, 40)
    picture = Image.frombytes("I;16B", (40, 30), ramp.astype(">u2").tobytes())
    read = np.asarray(EVERYTHING.read(encoded(picture, "TIFF")))
    assert np.array_equal(read[..., 1], ramp >> 8)


def test_a_transparent_level_of_sixteen_bit_grey_is_white() -> None:
    """A PNG may call one level clear; it is laid on white like any transparency."""
    levels = np.full((30, 40), 300, np.uint16)
    levels[:, 20:] = 40_000
    data = encoded(Image.fromarray(levels), "PNG", transparency=300)
    read = np.asarray(READER.read(data))
    assert (read[:, :20] == 255).all()
    assert (read[:, 20:] == 40_000 >> 8).all()


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_of_an_unknown_range_are_refused(dtype: type[np.generic]) -> None:
    """Floats and 32-bit integers would come out black; no scale fits them all."""
    picture = Image.fromarray(np.ones((30, 40), dtype))
    assert refused(encoded(picture, "TIFF"), EVERYTHING) is ImageModeUnsupported


def test_transparent_pixels_show_white_not_their_hidden_colour() -> None:
    """A clear red pixel is white; a half-clear one is half way."""
    levels = np.zeros((2, 2, 4), np.uint8)
    levels[..., 0] = 255
    levels[1, :, 3] = 255
    levels[0, 1, 3] = 128
    read = np.asarray(READER.read(encoded(Image.fromarray(levels), "PNG")))
    assert read[0, 0].tolist() == [255, 255, 255]
    assert read[1, 1].tolist() == [255, 0, 0]
    assert read[0, 1].tolist() == [255, 127, 127]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "RGB"])
@pytest.mark.parametrize("clear", [False, True])
def test_transparency_is_composited_as_transformers_does(mode: str, clear: bool) -> None:
    """Equal to the bit to convert_to_rgb of transformers, for alpha, palettes and PNG keys."""
    picture = scene(mode="RGBA" if mode in ("RGBA", "LA") else mode)
    if mode in ("RGBA", "LA") and clear:
        picture.putalpha(scene(mode="L"))
    picture = picture.convert(mode)
    options: dict[str, Any] = {}
    if clear and mode in ("P", "L", "RGB"):
        options["transparency"] = {"P": 5, "L": 100, "RGB": (0, 0, 0)}[mode]
    data = encoded(picture, "PNG", **options)
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


@pytest.mark.parametrize("name", ["gif", "apng"])
def test_an_animation_is_its_first_frame(name: str) -> None:
    """Further frames are neither decoded nor shown."""
    still = {"gif": encoded(scene(), "GIF"), "apng": encoded(scene(), "PNG")}[name]
    assert READER.read(good_pictures()[name]).tobytes() == READER.read(still).tobytes()


def test_a_jpeg_of_several_pictures_is_its_first() -> None:
    """Phones write such files and call them .jpg."""
    data = encoded(scene(), "MPO", save_all=True, append_images=[scene().rotate(180)])
    assert READER.read(data).tobytes() == READER.read(encoded(scene(), "JPEG")).tobytes()


def test_draft_decodes_a_jpeg_smaller_but_never_below_the_side_asked_for() -> None:
    """Where the policy allows it, a large JPEG is decoded at a fraction."""
    data = encoded(scene(1600, 1200), "JPEG")
    drafting = PictureReader(PicturePolicy(draft=True))
    assert drafting.read(data, draft_side=250).size == (400, 300)
    assert drafting.read(data, draft_side=700).size == (1600, 1200)
    assert drafting.read(data).size == (1600, 1200)


def test_draft_is_off_unless_the_policy_allows_it() -> None:
    """It changes pixels, so asking is not enough."""
    assert READER.read(encoded(scene(1600, 1200), "JPEG"), draft_side=10).size == (1600, 1200)


def test_draft_leaves_a_grey_jpeg_grey() -> None:
    """Only the size is drafted, not the colours."""
    data = encoded(scene(800, 600, "L"), "JPEG")
    picture = PictureReader(PicturePolicy(draft=True)).read(data, draft_side=100)
    levels = np.asarray(picture)
    assert picture.size == (100, 75) or min(picture.size) >= 100
    assert np.array_equal(levels[..., 0], levels[..., 2])


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (20_000, 10)])
def test_a_picture_of_any_shape_is_read(size: tuple[int, int]) -> None:
    """The least side is one pixel, and no aspect ratio is refused."""
    assert READER.read(encoded(scene(*size), "PNG")).size == size


def test_a_bitmap_of_no_pixels_is_undecodable() -> None:
    """A header may promise nothing at all."""
    data = bytearray(encoded(scene(), "BMP"))
    data[18:22] = bytes(4)
    assert refused(bytes(data)) is ImageUndecodable


@pytest.mark.parametrize("name", sorted(good_pictures()))
def test_mutated_pictures_are_read_or_refused_and_nothing_else(name: str) -> None:
    """Damaged bytes of every format end in a picture or an ItemError with its fixed sentence."""
    random, good = Random(name), good_pictures()[name]
    for _ in range(2_000 // len(good_pictures()) + 1):
        data = mutated(good, random)
        outcome = read_or_refusal(data)
        assert outcome in ("RGB", *(error.sentence for error in ItemError.by_code.values()))


def read_or_refusal(data: bytes) -> str:
    """The mode of the picture, or what the client would be told instead."""
    try:
        return EVERYTHING.read(data).mode
    except ItemError as error:
        return error.message


def mutated(good: bytes, random: Random) -> bytes:
    """One to eight changes: a byte set, bits flipped, a piece cut out, doubled or cut off."""
    data = bytearray(good)
    for _ in range(random.randint(1, 8)):
        at = random.randrange(len(data)) if random.random() < 0.5 else random.randrange(60)
        at = min(at, len(data) - 1)
        match random.randrange(5):
            case 0:
                data[at] = random.randrange(256)
            case 1:
                data[at] ^= 1 << random.randrange(8)
            case 2:
                del data[at : at + random.randrange(1, 20)]
            case 3:
                data[at:at] = data[at : at + random.randrange(1, 20)]
            case _:
                data = data[: max(12, len(data) - random.randrange(1, 40))]
        if not data:
            return good[:1]
    return bytes(data)


def test_many_threads_may_read_with_one_reader() -> None:
    """Concurrent reads of all formats give what single reads give."""
    files = list(good_pictures().values()) * 20
    alone = [EVERYTHING.read(data).tobytes() for data in files]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda data: EVERYTHING.read(data).tobytes(), files))
    assert together == alone


def test_damaged_pictures_write_nothing_to_the_log(tmp_path: Path) -> None:
    """Pillow's warnings are switched off once, at start, and stay off in every thread."""
    file = tmp_path / "damaged.jpg"
    file.write_bytes(encoded(scene(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage"))
    code = (
        "import sys, zlib; from tests.model.test_picture import *\n"
        "reader = PictureReader(PicturePolicy(max_pixels=10**8))\n"
        "print(reader.read(open(sys.argv[1], 'rb').read()).size)\n"
        "try: reader.read(png(9999, 9999, zlib.compress(b'x')))\n"  # more than Pillow warns of
        "except ItemError as error: print(error.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["(40, 30)", "image_undecodable"]


def test_reading_pictures_does_not_load_torch() -> None:
    """Decoding is possible in a process that never pays for torch."""
    code = "import sys, litapi.model.picture; print({'torch', 'transformers'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
