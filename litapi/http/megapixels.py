"""How many pixels images say they have, read from their heads: for keys with a limit on them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable

from litapi.messages import Item


def megapixels(items: Iterable[object], formats: tuple[str, ...]) -> float:
    """Of all images among the items; one whose head cannot be read counts nothing."""
    images = [item.payload for item in items if isinstance(item, Item) and item.kind == "image"]
    return sum(_pixels(one, formats) for one in images if isinstance(one, bytes)) / 1e6


def _pixels(image: bytes, formats: tuple[str, ...]) -> int:
    from PIL import Image  # only where a key has such a limit

    try:
        with warnings.catch_warnings(action="ignore"), io.BytesIO(image) as file:
            width, height = Image.open(file, formats=formats).size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0  # the tower refuses it by its own error
    return width * height
