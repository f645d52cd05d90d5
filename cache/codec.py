"""A vector as bytes that prove themselves.

    magic 4 | version 1 | dtype 1 | flags 2 | dim 4 | tokens 4 | echo 16 | crc32 4 | float32 ...

The crc covers every other byte, so a damaged value is never served. The echo is a digest of the
key the value was written under, so a sound value that arrives under another key (a reply left on a
connection by a cancelled command, a hand-made copy) is refused as well. Whatever does not verify
raises `Corrupt`; the tiers count it, treat it as a miss and write it anew. Never pickle: Redis may
be shared. Finiteness is checked where vectors are made, not here: the crc already says that these
are the bytes that were checked.
"""

from __future__ import annotations

from hashlib import sha256
from struct import Struct
from typing import NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

MAGIC = b"SL2V"
VERSION = 1
FLOAT32 = 1
TRUNCATED = 1
UNKNOWN = ~TRUNCATED

START = MAGIC + bytes((VERSION, FLOAT32))

_HEAD = Struct("<6sHII16s")
_CRC = Struct("<I")
_BOTH = Struct(_HEAD.format + "I")
_CHECKED = _HEAD.size
OVERHEAD = _BOTH.size


class Corrupt(ValueError):
    """The bytes are not the value that was written under this key."""


class Entry(NamedTuple):  # made for every hit: a frozen dataclass takes three times as long
    vector: bytes  # little-endian float32
    tokens: int = 0
    truncated: bool = False

    @property
    def array(self) -> npt.NDArray[np.float32]:
        """A read-only view; `bytes` cannot be written through."""
        return np.frombuffer(self.vector, dtype="<f4")

    def sound(self, dim: int) -> bool:
        """Whether this is `dim` finite numbers: all that may be stored or served."""
        fits = len(self.vector) == 4 * dim and 0 <= self.tokens < 2**32
        return fits and bool(np.isfinite(self.array).all())


def encode(key: bytes, entry: Entry) -> bytes:
    flags = TRUNCATED if entry.truncated else 0
    dim = len(entry.vector) // 4
    head = _HEAD.pack(START, flags, dim, entry.tokens, _echo(key))
    return b"".join((head, _CRC.pack(crc32(entry.vector, crc32(head))), entry.vector))


def decode(key: bytes, blob: bytes, dim: int) -> Entry:
    if len(blob) != OVERHEAD + 4 * dim:
        raise Corrupt("wrong length")
    start, flags, written, tokens, echo, crc = _BOTH.unpack_from(blob)
    vector = blob[OVERHEAD:]
    if crc != crc32(vector, crc32(blob[:_CHECKED])):
        raise Corrupt("wrong checksum")
    if start != START or written != dim or flags & UNKNOWN:
        raise Corrupt("another format")
    if echo != _echo(key):
        raise Corrupt("another key's value")
    return Entry(vector, tokens, flags == TRUNCATED)


def _echo(key: bytes) -> bytes:
    return sha256(key).digest()[:16]
