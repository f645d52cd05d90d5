"""Smaller types: what a client reads is the vector again, as near as its type allows."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cache import Entry
from litapi.http.answer import JSON, OCTETS, Answer, Vectors

Rows = np.ndarray[Any, np.dtype[np.float32]]
Codes = np.ndarray[Any, np.dtype[Any]]
Small = tuple[list[Any], list[Any]]  # what stands for each vector, and its scale if it has one
DIM = 16
TYPES = {"float16": "<f2", "int8": "i1", "binary": "u1"}

numbers = st.floats(-1, 1, width=32, allow_subnormal=False)
matrices = st.integers(1, 4).flatmap(lambda n: arrays(np.float32, (n, DIM), elements=numbers))


def entries_of(rows: Rows) -> list[Entry]:
    """The rows as the cache keeps them."""
    return [Entry(row.astype("<f4").tobytes(), tokens=3) for row in rows]


def quantized(type_: str, rows: Rows, form: str = "float", cut: int | None = None) -> Small:
    """Rows in a type, as a request asks for it."""
    return Vectors(form, cut, DIM, type_).small(entries_of(rows))


def codes_of(small: Small) -> Codes:
    """The codes as one array."""
    return np.array(small[0])


def sent(small: Small) -> list[list[float]]:
    """The codes as a client reads them out of JSON."""
    content: list[list[float]] = orjson.loads(Answer.json(small[0]).body)
    return content


@given(matrices)
def test_float16_is_each_number_rounded(rows: Rows) -> None:
    """Half precision, by numpy's rounding, and JSON says it to the last digit."""
    assert np.array_equal(np.array(sent(quantized("float16", rows)), "<f2"), rows.astype("<f2"))


@given(matrices)
@example(np.zeros((2, DIM), np.float32))
@example(np.full((1, DIM), np.float32(1e-44)))
def test_int8_times_its_scale_is_the_vector(rows: Rows) -> None:
    """To half a step, for every row by its own scale; also a row of zeros, and of near nothing."""
    small = quantized("int8", rows)
    codes = codes_of(small)
    scales = np.array(small[1], np.float64)[:, None]
    assert np.abs(codes).max() <= 127
    assert (scales > 0).all()
    assert (np.abs(codes * scales - rows) <= scales * 0.5001).all()


@given(matrices)
def test_int8_uses_its_whole_range_without_an_offset(rows: Rows) -> None:
    """The greatest number is at the end of the scale, and opposite vectors have opposite codes."""
    rows[:, 0] = 1
    there, back = (codes_of(quantized("int8", one)) for one in (rows, -rows))
    assert np.abs(there).max(axis=1).tolist() == [127] * len(rows)
    assert np.array_equal(there, -back)


@given(matrices)
def test_binary_is_the_signs_as_packbits_packs_them(rows: Rows) -> None:
    """`numpy.unpackbits` of the answer is, number by number, whether it was above zero."""
    small = quantized("binary", rows)
    read = np.unpackbits(np.array(sent(small), np.uint8), axis=1)
    assert np.array_equal(read.astype(bool), rows > 0)
    assert small[1] == []


@pytest.mark.parametrize("type_", TYPES)
@given(rows=matrices)
def test_base64_and_raw_bytes_hold_what_json_says(type_: str, rows: Rows) -> None:
    """Clients may switch the encoding and see the same codes."""
    said = np.array(sent(quantized(type_, rows)), TYPES[type_])
    text, _ = quantized(type_, rows, "base64")
    assert [
        np.frombuffer(base64.b64decode(t), TYPES[type_]).tolist() for t in text
    ] == said.tolist()
    raw = Vectors("float", None, DIM, type_).raw(entries_of(rows))
    assert OCTETS in raw.headers
    assert JSON not in raw.headers
    codes, scales = read(raw)
    assert np.array_equal(codes, said)
    assert scales == quantized(type_, rows)[1]


def read(answer: Answer) -> tuple[Codes, list[float]]:
    """A raw answer by its headers alone: the codes, and the scales where there are some."""
    headers = dict(answer.headers)
    kinds = {b"float16-le": "<f2", b"int8": "i1", b"binary": "u1"}
    kind = np.dtype(kinds[headers[b"x-embedding-dtype"]])
    rows, width = (int(n) for n in headers[b"x-embedding-shape"].split(b","))
    codes = np.frombuffer(answer.body, kind, rows * width).reshape(rows, width)
    rest = answer.body[codes.nbytes :]
    if b"x-embedding-scales" not in headers:
        assert rest == b""
        return codes, []
    return codes, np.frombuffer(rest, "<f4").tolist()


@pytest.mark.parametrize("type_", TYPES)
@given(rows=matrices)
def test_a_cut_comes_before_the_type(type_: str, rows: Rows) -> None:
    """The codes are those of the vector that float32 would give, cut and renormalised."""
    vectors = Vectors("float", 8, DIM, type_)
    cut = np.stack([vectors.row(entry) for entry in entries_of(rows)])
    whole = Vectors("float", None, 8, type_).small(entries_of(cut))
    small = vectors.small(entries_of(rows))
    assert (sent(small), small[1]) == (sent(whole), whole[1])


@pytest.mark.parametrize("type_", TYPES)
def test_a_refused_item_keeps_its_place(type_: str) -> None:
    """It is null among the vectors and among the scales, and its neighbours are what they were."""
    rows = np.linspace(-1, 1, 2 * DIM, dtype=np.float32).reshape(2, DIM)
    one, two = entries_of(rows)
    found: Sequence[Entry | None] = [None, one, None, two]
    forms, scales = Vectors("base64", None, DIM, type_).small(found)
    assert [one, two] == entries_of(rows)  # what is kept stays float32
    alone, by_scale = quantized(type_, rows, "base64")
    assert forms == [None, alone[0], None, alone[1]]
    assert scales == ([None, by_scale[0], None, by_scale[1]] if by_scale else [])
