"""Untrusted bytes to an RGB picture, or a refusal that names what is wrong.

The bytes may be hostile: the declared type is ignored and the first bytes decide; only the one
decoder they name is tried, never one outside the policy, and on no more than a `skeleton` of the
file; pixels, and the memory that their format takes, are counted in the header, before any is
decoded; whatever a decoder raises becomes an ItemError and its text goes nowhere, for Pillow's
messages hold memory addresses.

What a picture looks like follows transformers' own loading: EXIF orientation is applied, then
transparency is laid on white; ICC profiles are ignored. Beyond it, 16-bit grey is scaled to 8 bits
(Pillow would clip it to white) and an animation is its first frame.
"""

from __future__ import annotations

import ctypes
import importlib
import io
import logging
import re
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from litapi import errors
from litapi.model.pixel_budget import PixelBudget
from litapi.model.skeleton import Skeleton, orientation, skeleton, too_often

T = TypeVar("T")

PLUGINS = {  # phones write JPEGs of several pictures, which Pillow calls MPO
    "jpeg": ("Jpeg", "Mpo"), "png": ("Png",), "webp": ("WebP",), "gif": ("Gif",), "bmp": ("Bmp",),
    "avif": ("Avif",), "tiff": ("Tiff",),
}  # fmt: skip
FORMATS = tuple(PLUGINS)
STARTS = {
    "jpeg": (b"\xff\xd8\xff",), "png": (b"\x89PNG\r\n\x1a\n",), "gif": (b"GIF87a", b"GIF89a"),
    "bmp": (b"BM",), "tiff": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
}  # fmt: skip
AVIF_BRANDS = {b"avif", b"avis"}
MOST_BRANDS = 256  # bytes of the box that lists them
_T = Image.Transpose
TRANSPOSED = {  # by EXIF's orientation
    2: _T.FLIP_LEFT_RIGHT, 3: _T.ROTATE_180, 4: _T.FLIP_TOP_BOTTOM, 5: _T.TRANSPOSE,
    6: _T.ROTATE_270, 7: _T.TRANSVERSE, 8: _T.ROTATE_90,
}  # fmt: skip
_LIBTIFF = re.compile(r"/\S*libtiff[^/\s]*\.so\S*").findall
SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
CONVERTIBLE = frozenset(
    ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "LA", "La", "PA", "RGBA", "RGBa")
)
# Bytes a pixel of each mode in Pillow's memory, and of each format while it is decoded beside that:
# copies and canvases of its decoder, as measured.
STORED = {"1": 1, "L": 1, "P": 1, **dict.fromkeys(SIXTEEN_BIT, 2)}
BESIDE = {"jpeg": 0, "png": 0, "gif": 1, "bmp": 2, "tiff": 2, "webp": 12, "avif": 12}
COEFFICIENT = 2  # bytes of each pixel of each colour of a JPEG in several scans
ROW = 8  # bytes that Pillow keeps for each row, beside its pixels
BAND = 1 << 18  # pixels of a picture that are converted at a time
FORMS = 24  # bytes of each of these pixels, in all the forms between the first and the last


@dataclass(frozen=True, slots=True)
class PicturePolicy:
    """Which pictures are read: formats by name, at most so many bytes and pixels (w · h). `draft`
    lets JPEGs be decoded at a fraction of their size, which is faster and changes pixels."""

    formats: tuple[str, ...] = ("jpeg", "png", "webp", "gif", "bmp")
    max_bytes: int = 20 << 20
    max_pixels: int = 50_000_000
    draft: bool = False


class PictureReader:
    """Reads pictures under one policy; one reader may be used by many threads at once."""

    def __init__(
        self,
        policy: PicturePolicy | None = None,
        budget: PixelBudget | None = None,
        watch: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """`watch` is entered while a picture is decoded, and only then. Raises ValueError for a
        format this build cannot read."""
        self.policy = policy or PicturePolicy()
        self._budget = budget or PixelBudget(2 * self.policy.max_pixels)
        self._watch = watch
        for name in self.policy.formats:
            _load_plugins(name)
        # Once, here: warnings.catch_warnings would change the whole process under other threads.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        logging.getLogger("PIL").setLevel(logging.CRITICAL)  # or each bad picture writes a line
        if "tiff" in self.policy.formats:
            _hush_libtiff()
        # Pillow's own limit stays as a second belt, but must not be tighter than the policy's.
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, self.policy.max_pixels)

    def read(self, data: bytes, draft_side: int | None = None) -> Image.Image:
        """The picture in `data`, upright, opaque, mode RGB.

        `draft_side` is the least side in pixels a JPEG may be decoded at where the policy allows
        it. Raises the ItemError that names what is wrong.
        """
        return self.use(data, lambda picture: picture, draft_side)

    def use(
        self, data: bytes, what: Callable[[Image.Image], T], draft_side: int | None = None
    ) -> T:
        """What `what` makes of the picture that `read` gives, within the budget that it takes."""
        if not data:
            raise errors.ImageEmpty
        if len(data) > self.policy.max_bytes:
            raise errors.ImageTooLarge
        kind = sniff(data)
        if kind is None or kind not in self.policy.formats:
            raise errors.ImageFormatUnsupported
        with ExitStack() as room:
            return what(self._read(data, kind, draft_side, room))  # no name keeps it any longer

    def _read(self, data: bytes, kind: str, draft_side: int | None, room: ExitStack) -> Image.Image:
        try:
            return self._decode(skeleton(data, kind), kind, draft_side, room)
        except errors.ItemError:
            raise
        except Image.DecompressionBombError as error:
            raise errors.ImageTooManyPixels from error
        except MemoryError as error:  # this server's trouble, not the picture's
            raise errors.ItemInternal from error
        except Exception as error:  # decoders of damaged bytes raise anything
            raise errors.ImageUndecodable from error

    def _decode(
        self, file: Skeleton, kind: str, draft_side: int | None, room: ExitStack
    ) -> Image.Image:
        opened: Image.Image = Image.open(io.BytesIO(file.data), formats=(kind.upper(),))
        pixels = opened.width * opened.height
        if min(opened.size) < 1:
            raise errors.ImageUndecodable
        if max(pixels, file.tile) > self.policy.max_pixels:
            raise errors.ImageTooManyPixels
        if too_often(file.scans, pixels):
            raise errors.ImageTooSlow
        if self.policy.draft and draft_side and kind == "jpeg":
            opened.draft(opened.mode, (draft_side, draft_side))
        turned = _turned(opened, file, kind)
        size = _bytes(opened, file, kind, turned is not None)
        if not self._budget.has_room_for(size):
            raise errors.ImageTooHeavy
        room.enter_context(self._budget.hold(opened.width * opened.height, size))
        room.enter_context(self._watch())
        opened.load()
        picture = _alone(opened)
        del opened  # with the canvases of its decoder
        if kind != "tiff":  # Pillow turns a TIFF itself
            picture = picture if turned is None else _transposed(picture, turned)
        return _opaque(picture, kind)


def sniff(data: bytes) -> str | None:
    """The format that the first bytes name, one of FORMATS, or None."""
    for kind, starts in STARTS.items():
        if data.startswith(starts):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp" and not AVIF_BRANDS.isdisjoint(_brands(data)):
        return "avif"
    return None


def _load_plugins(name: str) -> None:
    """Import a format's decoder now, so that no thread does it in the middle of a request."""
    if name not in FORMATS:
        raise ValueError(f"{name} is not an image format this server knows: {', '.join(FORMATS)}")
    for plugin in PLUGINS[name]:
        importlib.import_module(f"PIL.{plugin}ImagePlugin")
    if name.upper() not in Image.OPEN:
        raise ValueError(f"this build of Pillow reads no {name}")


def _hush_libtiff() -> None:
    """Take away its two handlers, which write to the process's standard error for bad files."""
    with suppress(OSError):
        for path in set(_LIBTIFF(Path("/proc/self/maps").read_text())):
            library = ctypes.CDLL(path)
            for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
                handler = getattr(library, name)
                handler.restype = ctypes.c_void_p
                handler.argtypes = [ctypes.c_void_p]
                handler(None)


def _brands(data: bytes) -> list[bytes]:
    """The major brand, then the compatible ones; a version stands between them."""
    size = min(int.from_bytes(data[:4], "big"), MOST_BRANDS)
    return [data[at : at + 4] for at in (8, *range(16, size, 4))]


def _turned(opened: Image.Image, file: Skeleton, kind: str) -> Image.Transpose | None:
    """How the picture has to be turned to be upright; a damaged EXIF says nothing."""
    if kind == "tiff":
        lies = getattr(opened, "tag_v2", {}).get(0x0112, 1)
    else:
        exif, xmp = opened.info.get("exif", b""), opened.info.get("xmp", b"")
        lies = orientation(file.exif or exif, file.xmp or xmp)
    return TRANSPOSED.get(lies) if isinstance(lies, int) else None


def _bytes(opened: Image.Image, file: Skeleton, kind: str, turned: bool) -> int:
    """The most memory that decoding takes at one time, until there is a picture in RGB."""
    stored = STORED.get(opened.mode, 4)
    beside: float = BESIDE[kind]
    if kind == "jpeg" and (file.scans > 1 or "progressive" in opened.info):
        beside = COEFFICIENT * _colours(opened)
    after = max(stored if turned else 0, 0 if opened.mode == "RGB" else 4)
    pixels = max(opened.width * opened.height, file.tile)
    rows = 2 * ROW * max(opened.size)
    band = FORMS * min(pixels, BAND)
    return int(pixels * (stored + max(beside, after))) + rows + band + len(file.data)


def _colours(opened: Image.Image) -> float:
    """How many pixels of any colour a JPEG has for each of its own: 1.5 with the usual halving."""
    layers: list[tuple[int, int, int, int]] = getattr(opened, "layer", [])
    parts = [across * down for _, across, down, _ in layers]
    return sum(parts) / max(1, *parts)


def _alone(opened: Image.Image) -> Image.Image:
    """The loaded pixels without the file they came from."""
    picture = opened._new(opened.im)
    clear = opened.info.get("transparency")
    picture.info = {} if clear is None else {"transparency": clear}
    return picture


def _transposed(picture: Image.Image, turned: Image.Transpose) -> Image.Image:
    upright = picture.transpose(turned)
    upright.info = picture.info  # a palette's transparency stays with the picture
    return upright


def _opaque(picture: Image.Image, kind: str) -> Image.Image:
    """The picture in RGB, on white where it is transparent."""
    if picture.mode in SIXTEEN_BIT or (picture.mode == "I" and kind == "png"):
        return _by_bands(picture, _eight_bit)
    if picture.mode not in CONVERTIBLE:
        raise errors.ImageModeUnsupported
    if picture.has_transparency_data:
        return _by_bands(picture, _on_white)
    return picture if picture.mode == "RGB" else picture.convert("RGB")  # convert would copy


def _by_bands(picture: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """`convert` on a few rows at a time, so that only they are there in every form at once."""
    if picture.width * picture.height <= BAND:
        return convert(picture)
    whole = Image.new("RGB", picture.size)
    rows = max(1, BAND // picture.width)
    for top in range(0, picture.height, rows):
        band = picture.crop((0, top, picture.width, min(picture.height, top + rows)))
        whole.paste(convert(band), (0, top))
    return whole


def _on_white(picture: Image.Image) -> Image.Image:
    picture = picture.convert("RGBA")
    if picture.getchannel("A").getextrema() == (255, 255):
        return picture.convert("RGB")  # opaque after all: the usual screenshot
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, picture).convert("RGB")


def _eight_bit(picture: Image.Image) -> Image.Image:
    """16-bit grey scaled to 8 bits; the one level a PNG may call transparent becomes white."""
    levels = np.asarray(picture)
    grey = (levels >> 8).astype(np.uint8)
    clear = picture.info.get("transparency")
    if isinstance(clear, int):
        grey[levels == clear] = 255
    return Image.fromarray(grey).convert("RGB")
