"""Pictures as a caller has them → encoded bytes."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO, Any, Protocol

from litapi.client.embedded import ItemRefused

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif", ".tif", ".tiff"})


class Savable(Protocol):
    """A PIL image, which need not be installed here."""

    @property
    def size(self) -> tuple[int, int]: ...

    def save(self, fp: IO[bytes], format: str | None = None) -> Any: ...  # noqa: A002 - PIL's name


Picture = str | os.PathLike[str] | bytes | Savable  # a str is a path


def size_of(picture: Picture) -> int:
    """About its bytes when encoded, without reading it."""
    if isinstance(picture, bytes):
        return len(picture)
    if isinstance(picture, str | os.PathLike):
        try:
            return Path(picture).stat().st_size
        except (OSError, ValueError):
            return 0
    return 4 * picture.size[0] * picture.size[1]


def encoded(picture: Picture, most: int) -> bytes | ItemRefused:
    """Its bytes as they are; a PIL image becomes a PNG, equal bytes for equal pixels."""
    too_large = ItemRefused("image_too_large", f"The server accepts {most} bytes of an image.")
    if isinstance(picture, str | os.PathLike) and size_of(picture) > most:
        return too_large
    try:
        data = _bytes(picture)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        return ItemRefused("image_missing", f"The image cannot be read: {error}")
    return data if len(data) <= most else too_large


def _bytes(picture: Picture) -> bytes:
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, str | os.PathLike):
        return Path(picture).read_bytes()
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def found_in(folder: Path) -> list[Path]:
    """The pictures of a folder and of all folders in it, by name."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
