"""A vector as bytes that prove themselves.

    magic 4 | version 1 | dtype 1 | flags 2 | dim 4 | tokens 4 | echo 16 | crc32 4 | float32 ...

The crc covers every other byte, so a damaged value is never served. The echo is a digest of the
key the value was written under, so a sound value that arrives under another key (a reply left on a
connection by a cancelled command, a hand-made copy) is refused as well. Whatever does not verify
raises `Corrupt`; the tiers count it, treat it as a miss and write it anew. Never pickle: Redis may
be shared. A checksum says nothing of who wrote the value: whoever can write to Redis can make one.
So the numbers must have unit length, which NaN and infinity have not, and where there is a secret
the echo is a keyed digest of the whole value, which only its holders can make.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b, sha256
from hmac import compare_digest
from struct import Struct
from typing import NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

START = b"SL2V" + bytes((1, 1))  # magic, version, float32
TRUNCATED = 1  # the only flag

_HEAD = Struct("<6sHII16s")
_CRC = Struct("<I")
_SEALED = Struct("<HI")
_BOTH = Struct(_HEAD.format + "I")
_CHECKED = _HEAD.size
OVERHEAD = _BOTH.size
_LEAST, _MOST = 0.999, 1.001  # of the squared length; float32 keeps it to about 1e-6
_FLOAT32 = np.dtype("<f4")  # to read its name each time would take half as long again


class Corrupt(ValueError):
    """The bytes are not the value that was written under this key."""


class Entry(NamedTuple):  # made for every hit: a frozen dataclass takes three times as long
    vector: bytes  # little-endian float32
    tokens: int = 0
    truncated: bool = False

    @property
    def array(self) -> npt.NDArray[np.float32]:
        """A read-only view; `bytes` cannot be written through."""
        return np.frombuffer(self.vector, _FLOAT32)

    def sound(self, dim: int) -> bool:
        """Whether this is `dim` finite numbers: all that may be stored or served."""
        fits = len(self.vector) == 4 * dim and 0 <= self.tokens < 2**32
        return fits and bool(np.isfinite(self.array).all())


def encode(key: bytes, entry: Entry, secret: bytes = b"") -> bytes:
    """`secret`, up to 64 bytes, must be that of `decode`."""
    flags = TRUNCATED if entry.truncated else 0
    dim = len(entry.vector) // 4
    echo = _sealed(key, flags, entry.tokens, entry.vector, secret) if secret else _echo(key)
    head = _HEAD.pack(START, flags, dim, entry.tokens, echo)
    return b"".join((head, _CRC.pack(crc32(entry.vector, crc32(head))), entry.vector))


def decode(key: bytes, blob: bytes, dim: int, secret: bytes = b"") -> Entry:
    """Raises `Corrupt` for whatever `encode` did not make of a unit vector under this key."""
    entry = opened(key, blob, dim, secret)
    if strays([entry], dim):
        raise Corrupt("not a unit vector")
    return entry


def strays(entries: Sequence[Entry], dim: int) -> list[int]:
    """Places of entries whose length is not 1. All at once: one by one doubles a decoding."""
    whole = entries[0].vector if len(entries) == 1 else b"".join([one.vector for one in entries])
    rows = np.frombuffer(whole, _FLOAT32)
    if len(entries) == 1:
        return [] if _LEAST < float(rows.dot(rows)) < _MOST else [0]
    rows = rows.reshape(-1, dim)
    squares = np.einsum("ij,ij->i", rows, rows)
    return np.flatnonzero(~((squares > _LEAST) & (squares < _MOST))).tolist()


def opened(key: bytes, blob: bytes, dim: int, secret: bytes = b"") -> Entry:
    """As `decode`, without a look at the length of the vector."""
    if len(blob) != OVERHEAD + 4 * dim:
        raise Corrupt("wrong length")
    start, flags, written, tokens, echo, crc = _BOTH.unpack_from(blob)
    vector = blob[OVERHEAD:]
    if crc != crc32(vector, crc32(blob[:_CHECKED])):
        raise Corrupt("wrong checksum")
    if start != START or written != dim or flags > TRUNCATED:
        raise Corrupt("another format")
    if secret:
        if not compare_digest(echo, _sealed(key, flags, tokens, vector, secret)):
            raise Corrupt("a value of somebody without the secret")
    elif echo != _echo(key):
        raise Corrupt("another key's value")
    return Entry(vector, tokens, flags == TRUNCATED)


def _sealed(key: bytes, flags: int, tokens: int, vector: bytes, secret: bytes) -> bytes:
    digest = blake2b(key, key=secret, digest_size=16)
    digest.update(_SEALED.pack(flags, tokens))  # the key's length never changes, nor this one
    digest.update(vector)
    return digest.digest()


def _echo(key: bytes) -> bytes:
    return sha256(key).digest()[:16]
