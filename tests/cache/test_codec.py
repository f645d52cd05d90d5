import struct
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from cache.codec import OVERHEAD, Corrupt, Entry, decode, encode

KEY = b"sl2:" + bytes(41)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def unit_of(numbers: NDArray[Any]) -> Any:
    """The vector of length 1 in that direction, or the first axis where it has none."""
    length = np.linalg.norm(numbers.astype("<f8"))
    if not length > 1e-30:
        return np.eye(1, len(numbers))[0].astype(np.float32)
    return (numbers.astype("<f8") / length).astype(np.float32)


VECTORS = hnp.arrays(np.dtype("<f4"), st.integers(1, 64), elements=FLOATS)
BYTES = VECTORS.map(lambda numbers: unit_of(numbers).tobytes())
ENTRIES = st.builds(Entry, BYTES, st.integers(0, 2**32 - 1), st.booleans())


def sample(dim: int = 8) -> Entry:
    vector = unit_of(np.linspace(-1, 1, dim, dtype="<f4"))
    return Entry(vector.tobytes(), tokens=7, truncated=True)


def resealed(blob: bytes, at: int, value: bytes) -> bytes:
    """The blob with some header bytes changed and a checksum that is right again."""
    head = bytearray(blob[:32])
    head[at : at + len(value)] = value
    vector = blob[OVERHEAD:]
    return bytes(head) + struct.pack("<I", crc32(vector, crc32(bytes(head)))) + vector


@given(st.binary(max_size=64), ENTRIES)
def test_what_was_encoded_decodes_to_the_same_entry(key: bytes, entry: Entry) -> None:
    """Vector, token count and truncated flag all come back, bit for bit."""
    assert decode(key, encode(key, entry), len(entry.array)) == entry


def test_a_value_with_a_bit_that_flipped_is_corrupt() -> None:
    """Every bit of one small value was tried."""
    blob = encode(KEY, sample())
    for bit in range(8 * len(blob)):
        damaged = bytearray(blob)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corrupt):
            decode(KEY, bytes(damaged), 8)


@given(ENTRIES, st.binary(min_size=4, max_size=4), st.data())
def test_a_value_that_was_damaged_is_corrupt(
    entry: Entry, burst: bytes, data: st.DataObject
) -> None:
    """A crc32 misses no four bytes in a row; half a reply is none, nor are two glued together."""
    blob = encode(KEY, entry)
    at = data.draw(st.integers(0, len(blob) - 4))
    for damaged in (blob[:at] + burst + blob[at + 4 :], blob[:at], blob + b"\0"):
        if damaged != blob:
            with pytest.raises(Corrupt):
                decode(KEY, damaged, len(entry.array))


@given(st.binary(max_size=200), st.integers(0, 48))
def test_bytes_of_any_other_origin_are_corrupt(blob: bytes, dim: int) -> None:
    """Whatever somebody else put under our key is refused."""
    with pytest.raises(Corrupt):
        decode(KEY, blob, dim)


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_a_sound_value_under_another_key_is_corrupt(one: bytes, other: bytes) -> None:
    """A reply that belongs to another look-up never becomes this one's vector."""
    blob = encode(one, sample())
    if one != other:
        with pytest.raises(Corrupt, match="another key"):
            decode(other, blob, 8)


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, b"XXXX"), (4, b"\2"), (5, b"\2"), (6, b"\2\0"), (6, b"\1\1"), (8, b"\7\0\0\0")],
    ids=["magic", "version", "dtype", "flag", "high flag", "dim"],
)
def test_another_format_is_corrupt_even_with_a_right_checksum(at: int, value: bytes) -> None:
    """A later format of our own is not read by guessing."""
    with pytest.raises(Corrupt, match="another format"):
        decode(KEY, resealed(encode(KEY, sample()), at, value), 8)


def test_the_bytes_of_a_value_are_as_they_always_were() -> None:
    """Values outlive a release: a change here needs a new version number."""
    entry = Entry(np.array([1.0, -2.0], "<f4").tobytes(), tokens=3, truncated=True)
    blob = encode(b"sl2:k", entry)
    assert blob[:8].hex(" ") == "53 4c 32 56 01 01 01 00"  # magic, version, dtype, flags
    assert blob[8:16].hex(" ") == "02 00 00 00 03 00 00 00"  # dim, tokens
    assert blob[16:32].hex() == "3df198edb67a43ffa093d87b2296b468"  # of the key
    assert blob[32:36].hex() == "ecd7062a"
    assert blob[36:].hex(" ") == "00 00 80 3f 00 00 00 c0"


def test_the_array_is_a_view_that_cannot_be_written() -> None:
    """Everybody who got this vector shares its memory."""
    array = sample().array
    assert array.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 5.0


def test_soundness_is_the_right_length_and_a_token_count_that_can_be_written() -> None:
    """What is sound can be encoded."""
    entry = sample()
    assert entry.sound(8)
    assert not entry.sound(9)
    assert not entry._replace(tokens=-1).sound(8)
    assert not entry._replace(tokens=2**32).sound(8)
    assert not entry._replace(vector=entry.vector + b"\0").sound(8)


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.99, 1.01, 2, 1e30, -1e-30, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("numbers", [1, 64])
def test_a_value_of_another_length_than_one_is_corrupt(factor: float, numbers: int) -> None:
    """Whoever can write to Redis can make a right checksum; such a vector is not served."""
    vector = np.eye(1, 64, dtype="<f4")[0] if numbers == 1 else sample(64).array.copy()
    with np.errstate(all="ignore"):
        vector[:numbers] *= np.float32(factor)
        with pytest.raises(Corrupt, match="unit"):
            decode(KEY, encode(KEY, Entry(vector.tobytes())), 64)


@pytest.mark.parametrize("precision", ["<f4", "<f2"])
def test_what_is_a_unit_vector_to_a_computer_is_taken(precision: str) -> None:
    """Rounding, also that of half precision, is no damage."""
    for seed in range(200):
        numbers = np.random.default_rng(seed).standard_normal(1152)
        vector = unit_of(unit_of(numbers.astype("<f4")).astype(precision).astype("<f4"))
        assert decode(KEY, encode(KEY, Entry(vector.tobytes())), 1152).vector == vector.tobytes()


SECRET = bytes(range(32))


@given(ENTRIES)
def test_with_a_secret_only_its_holder_makes_values(entry: Entry) -> None:
    """A value made without it, with another one, or changed and given a right checksum again."""
    dim = len(entry.array)
    blob = encode(KEY, entry, SECRET)
    assert decode(KEY, blob, dim, SECRET) == entry
    others = [encode(KEY, entry), encode(KEY, entry, b"other"), encode(b"sl2:x", entry, SECRET)]
    for forged in (
        entry._replace(tokens=entry.tokens ^ 1),
        entry._replace(truncated=not entry.truncated),
        entry._replace(vector=(-entry.array).tobytes()),
    ):
        others += [resealed(encode(KEY, forged), 16, blob[16:32])]
    for other in others:
        with pytest.raises(Corrupt):
            decode(KEY, other, dim, SECRET)
