"""Untrusted bytes to an RGB picture, or a refusal that names what is wrong.

The bytes may be hostile: the declared type is ignored and the first bytes decide; only the one
decoder they name is tried, never one outside the policy; pixels are counted in the header, before
any is decoded; whatever a decoder raises becomes an ItemError and its text goes nowhere, for
Pillow's messages hold memory addresses.

What a picture looks like follows transformers' own loading: EXIF orientation is applied, then
transparency is laid on white; ICC profiles are ignored. Beyond it, 16-bit grey is scaled to 8 bits
(Pillow would clip it to white) and an animation is its first frame.
"""

from __future__ import annotations

import importlib
import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image

from litapi.errors import (
    ImageEmpty,
    ImageFormatUnsupported,
    ImageModeUnsupported,
    ImageTooLarge,
    ImageTooManyPixels,
    ImageUndecodable,
    ItemError,
    ItemInternal,
)
from litapi.model.pixel_budget import PixelBudget

FORMATS = ("jpeg", "png", "webp", "gif", "bmp", "avif", "tiff")
PLUGINS = {
    "jpeg": ("Jpeg", "Mpo"),  # phones write JPEGs of several pictures, which Pillow calls MPO
    "png": ("Png",),
    "webp": ("WebP",),
    "gif": ("Gif",),
    "bmp": ("Bmp",),
    "avif": ("Avif",),
    "tiff": ("Tiff",),
}
ORIENTATION = 0x0112
TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
CONVERTIBLE = frozenset(
    ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "LA", "La", "PA", "RGBA", "RGBa")
)


@dataclass(frozen=True, slots=True)
class PicturePolicy:
    """Which pictures are read: formats by name, at most so many bytes and pixels (w · h).

    `draft` lets JPEGs be decoded at a fraction of their size, which is faster and changes pixels.
    """

    formats: tuple[str, ...] = ("jpeg", "png", "webp", "gif", "bmp")
    max_bytes: int = 20 << 20
    max_pixels: int = 50_000_000
    draft: bool = False


class PictureReader:
    """Reads pictures under one policy; one reader may be used by many threads at once."""

    def __init__(
        self, policy: PicturePolicy | None = None, budget: PixelBudget | None = None
    ) -> None:
        """Raises ValueError for a format this build cannot read."""
        self.policy = policy or PicturePolicy()
        self._budget = budget or PixelBudget(2 * self.policy.max_pixels)
        for name in self.policy.formats:
            _load_plugins(name)
        # Once, here: warnings.catch_warnings would change the whole process under other threads.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        # Pillow's own limit stays as a second belt, but must not be tighter than the policy's.
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, self.policy.max_pixels)

    def read(self, data: bytes, draft_side: int | None = None) -> Image.Image:
        """The picture in `data`, upright, opaque, mode RGB.

        `draft_side` is the least side in pixels a JPEG may be decoded at where the policy allows
        it. Raises the ItemError that names what is wrong.
        """
        if not data:
            raise ImageEmpty
        if len(data) > self.policy.max_bytes:
            raise ImageTooLarge
        kind = sniff(data)
        if kind is None or kind not in self.policy.formats:
            raise ImageFormatUnsupported
        try:
            return self._decode(data, kind, draft_side)
        except ItemError:
            raise
        except Image.DecompressionBombError as error:
            raise ImageTooManyPixels from error
        except MemoryError as error:  # this server's trouble, not the picture's
            raise ItemInternal from error
        except Exception as error:  # decoders of damaged bytes raise anything
            raise ImageUndecodable from error

    def _decode(self, data: bytes, kind: str, draft_side: int | None) -> Image.Image:
        picture: Image.Image = Image.open(io.BytesIO(data), formats=(kind.upper(),))
        width, height = picture.size
        if width < 1 or height < 1:
            raise ImageUndecodable
        if width * height > self.policy.max_pixels:
            raise ImageTooManyPixels
        if self.policy.draft and draft_side and kind == "jpeg":
            picture.draft(picture.mode, (draft_side, draft_side))
        with self._budget.hold(picture.width * picture.height):
            picture.load()
            return _opaque(_upright(picture), kind)


def sniff(data: bytes) -> str | None:
    """The format that the first bytes name, one of FORMATS, or None."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data.startswith(b"BM"):
        return "bmp"
    if data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis"):
        return "avif"
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "tiff"
    return None


def _load_plugins(name: str) -> None:
    """Import a format's decoder now, so that no thread does it in the middle of a request."""
    if name not in FORMATS:
        raise ValueError(f"{name} is not an image format this server knows: {', '.join(FORMATS)}")
    for plugin in PLUGINS[name]:
        importlib.import_module(f"PIL.{plugin}ImagePlugin")
    if name.upper() not in Image.OPEN:
        raise ValueError(f"this build of Pillow reads no {name}")


def _upright(picture: Image.Image) -> Image.Image:
    """The picture turned as its EXIF says; a damaged EXIF says nothing."""
    try:
        turned = TRANSPOSED.get(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # EXIF is parsed apart from the pixels, which are sound
        return picture
    if turned is None:
        return picture
    upright = picture.transpose(turned)
    upright.info = picture.info  # a palette's transparency stays with the picture
    return upright


def _opaque(picture: Image.Image, kind: str) -> Image.Image:
    """The picture in RGB, on white where it is transparent."""
    if picture.mode in SIXTEEN_BIT or (picture.mode == "I" and kind == "png"):
        return _eight_bit(picture)
    if picture.mode not in CONVERTIBLE:
        raise ImageModeUnsupported
    if picture.has_transparency_data:
        return _on_white(picture.convert("RGBA"))
    return picture if picture.mode == "RGB" else picture.convert("RGB")  # convert would copy


def _on_white(picture: Image.Image) -> Image.Image:
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
