"""Compressed request bodies: gzip and deflate (RFC 9110, 8.4), decompressed in bounded steps."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from litapi.errors import MediaTypeUnsupported, RequestInvalid

STEP = 1 << 20  # bytes that come out at once: some milliseconds
MOST_MEMBERS = 1000  # of a gzip body: each costs time, even an empty one
GZIP, ZLIB, RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
CODINGS = {"gzip": GZIP, "x-gzip": GZIP, "deflate": ZLIB}


class Inflate:
    """Decompresses one body piece by piece. Raises MediaTypeUnsupported: for a coding that is not
    read here, or several."""

    def __init__(self, header: str) -> None:
        codings = [one.strip().lower() for one in header.split(",")]
        codings = [one for one in codings if one not in ("", "identity")]
        if len(codings) != 1 or codings[0] not in CODINGS:
            raise MediaTypeUnsupported(
                "Content-Encoding: bodies are read plain, or compressed once with gzip or deflate."
            )
        self._wbits = CODINGS[codings[0]]
        self._inner = zlib.decompressobj(self._wbits)
        self._first = b""  # at least two bytes are needed to tell the two forms of deflate
        self._members = 0

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """What comes out of another piece, at most `STEP` bytes at once. Raises RequestInvalid:
        this is not what the header says."""
        if not self._members:
            piece = self._first = self._first + piece
            if len(piece) < 2:
                return
            self._begin(piece)
        try:
            out = b""
            while piece or (len(out) == STEP and not self._inner.eof):  # more of it is inside
                if self._inner.eof:
                    self._next_member()
                out = self._inner.decompress(piece, STEP)
                piece = self._inner.unconsumed_tail or self._inner.unused_data
                yield out
        except zlib.error:
            raise _wrong() from None

    def end(self) -> None:
        """Raises `RequestInvalid` where the body was cut short."""
        if self._first and not self._inner.eof:
            raise _wrong()

    def _begin(self, piece: bytes) -> None:
        """Many clients send deflate without zlib's header of two bytes."""
        self._members = 1
        plain = piece[0] & 15 == zlib.DEFLATED and int.from_bytes(piece[:2], "big") % 31 == 0
        if self._wbits == ZLIB and not plain:
            self._inner = zlib.decompressobj(RAW)

    def _next_member(self) -> None:
        self._members += 1
        if self._wbits == ZLIB or self._members > MOST_MEMBERS:
            raise _wrong()
        self._inner = zlib.decompressobj(GZIP)


def _wrong() -> RequestInvalid:
    return RequestInvalid("The body is not what its Content-Encoding says, or it was cut short.")
