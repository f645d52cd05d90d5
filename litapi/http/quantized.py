"""Vectors in fewer bytes than float32, made when an answer is written.

The cache keeps float32, so every type is made of the same stored numbers; a vector that is cut to
fewer dimensions is cut and renormalised first. All rows of an answer are turned at once.

    float16   each number rounded to half precision
    int8      round(number / scale); scale is the vector's greatest |number| / 127
    binary    a bit for each number, 1 where it is above zero; eight a byte, the first one highest

Other makers have two more: uint8 is int8 + 128, and their binary is ours - 128.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pybase64

from cache import Entry
from litapi.http.answer import OCTETS, Answer, Vectors

Rows = np.ndarray[Any, np.dtype[np.float32]]
Codes = np.ndarray[Any, np.dtype[Any]]
Scales = np.ndarray[Any, np.dtype[np.float32]]

GREATEST: Final = 127  # -128 stays unused, so that a vector and its opposite have opposite codes


class Quantized:
    """The vectors of one answer in a smaller type, in order; None stands for a refused item.

    `forms` holds them as they stand in a JSON answer, `scales` what a number of each is worth
    (None altogether where the type has no scale).
    """

    __slots__ = ("_codes", "_scales", "_type", "forms", "scales")

    def __init__(self, type_: str, found: Sequence[Entry | None], vectors: Vectors) -> None:
        kept = [entry for entry in found if entry is not None]
        rows = np.stack([vectors.row(entry) for entry in kept])
        self._type = type_
        self._codes, self._scales = _TURN[type_](rows)
        forms = [
            pybase64.b64encode_as_string(c.tobytes()) if vectors.base64 else c for c in self._codes
        ]
        self.forms: list[Any] = _placed(found, forms)
        self.scales = None if self._scales is None else _placed(found, list(self._scales))

    def raw(self) -> Answer:
        """The codes row by row, then the scales as float32; the headers say how to read them."""
        answer = Answer(self._codes.tobytes(), headers=[OCTETS])
        shape = b"%d,%d" % self._codes.shape
        answer.headers += [(b"x-embedding-shape", shape), (b"x-embedding-dtype", _WIRE[self._type])]
        if self._scales is not None:
            answer.body += self._scales.tobytes()
            answer.headers.append((b"x-embedding-scales", b"float32-le"))
        return answer


def _placed(found: Sequence[Entry | None], values: Sequence[Any]) -> list[Any]:
    following = iter(values)
    return [None if entry is None else next(following) for entry in found]


def _int8(rows: Rows) -> tuple[Codes, Scales]:
    greatest = np.abs(rows).max(axis=1)
    scales = (greatest / GREATEST).astype("<f4")
    scales[scales == 0] = 1  # a vector of zeros
    codes = np.rint(rows / scales[:, None]).clip(-GREATEST, GREATEST)
    return codes.astype(np.int8), scales


def _binary(rows: Rows) -> tuple[Codes, None]:
    return np.packbits(rows > 0, axis=1), None


_TURN: Final[dict[str, Callable[[Rows], tuple[Codes, Scales | None]]]] = {
    "float16": lambda rows: (rows.astype("<f2"), None),
    "int8": _int8,
    "binary": _binary,
    "uint8": lambda rows: (_int8(rows)[0].view(np.uint8) ^ 0x80, None),
    "signed_binary": lambda rows: ((_binary(rows)[0] ^ 0x80).view(np.int8), None),
}
_WIRE: Final = {"float16": b"float16-le", "int8": b"int8", "binary": b"binary"}
