"""Why a row of the input is refused before it is a text or an image. The rest is in litapi.errors.

Their codes stand in the `error` column of the output, beside those of the service, and mean the
same for ever.
"""

from __future__ import annotations

from litapi.errors import ItemError


class RowNull(ItemError):
    code = "row_null"
    sentence = "The row has no value."


class RowTypeWrong(ItemError):
    code = "row_type_wrong"
    sentence = "The row holds neither a text nor, where images are read, a path or bytes."


class RowUnreadable(ItemError):
    code = "row_unreadable"
    sentence = "The line is not a JSON object."


class ImageMissing(ItemError):
    code = "image_missing"
    sentence = "There is no such file, or it may not be read."
    deterministic = False
