"""A value of the input → what the towers take, or why not, by the limits of the service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deploy.bulk.source import ImageMissing, RowNull, RowTypeWrong
from litapi.errors import ImageTooLarge, ImageUrlDisabled, ItemError
from litapi.http.inputs import Read, Reader
from litapi.messages import Item, Kind
from litapi.settings import Settings

NOT_PATHS = ("data:", "http://", "https://")


class Intake:
    """Reads values of one kind."""

    def __init__(self, settings: Settings, kind: Kind) -> None:
        self._reader = Reader(settings, None)
        self._most = settings.max_image_bytes
        self._kind = kind

    def item(self, value: Any, folder: Path) -> Item | ItemError:
        """The text or the encoded image; a path is one relative to `folder`."""
        if isinstance(value, ItemError):
            return value
        read = self._text(value) if self._kind == "text" else self._image(value, folder)
        return read if isinstance(read, Item | ItemError) else ImageUrlDisabled()

    def _text(self, value: Any) -> Read:
        if value is None:
            return RowNull()
        return self._reader.text(value) if isinstance(value, str) else RowTypeWrong()

    def _image(self, value: Any, folder: Path) -> Read:
        if isinstance(value, dict):  # as image data sets keep them
            value = value.get("path") if value.get("bytes") is None else value["bytes"]
        if value is None:
            return RowNull()
        if isinstance(value, bytes):
            return self._reader.image_bytes(value)
        return self._named(value, folder) if isinstance(value, str) else RowTypeWrong()

    def _named(self, name: str, folder: Path) -> Read:
        if name[:8].lower().startswith(NOT_PATHS):
            return self._reader.image(name)
        try:
            path = folder / name
            if path.stat().st_size > self._most:
                return ImageTooLarge()
            return self._reader.image_bytes(path.read_bytes())
        except (OSError, ValueError):  # ValueError: a name with a zero byte
            return ImageMissing()
