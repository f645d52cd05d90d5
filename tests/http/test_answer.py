"""Vectors → bytes: in whatever form and type, a client reads the same numbers, or the nearest."""

import asyncio
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
from litapi.errors import DeadlineExceeded, Overloaded, RequestInvalid, ServiceError
from litapi.http.answer import JSON, OCTETS, Answer, Vectors

Row = np.ndarray[Any, np.dtype[np.float32]]  # or several
Codes = np.ndarray[Any, np.dtype[Any]]
DIM = 16
Small = tuple[list[Any], list[Any]]  # what stands for each vector, and its scale if it has one
TYPES = {"float16": "<f2", "int8": "i1", "binary": "u1"}

numbers = st.floats(-1, 1, width=32, allow_subnormal=False)
rows = arrays(np.float32, DIM, elements=numbers)
matrices = st.integers(1, 4).flatmap(lambda n: arrays(np.float32, (n, DIM), elements=numbers))


def entry_of(row: Row) -> Entry:
    """The row as the cache keeps it."""
    return Entry(row.astype("<f4").tobytes(), tokens=3)


def headers_of(answer: Answer) -> dict[bytes, bytes]:
    """Headers by name; none may stand twice."""
    assert len({name for name, _ in answer.headers}) == len(answer.headers)
    return dict(answer.headers)


@given(rows, st.integers(1, DIM) | st.none())
def test_base64_and_octets_are_the_float_rows(row: Row, dimensions: int | None) -> None:
    """The same numbers, cut or whole; a whole vector is the very bytes of the cache."""
    entry = entry_of(row)
    vectors, text = Vectors("float", dimensions, DIM), Vectors("base64", dimensions, DIM)
    octets = vectors.octets(entry)
    assert base64.b64decode(str(text.form(entry))) == text.octets(entry) == octets
    assert np.array_equal(np.frombuffer(octets, "<f4"), vectors.row(entry))
    assert vectors.cut == (dimensions not in (None, DIM))
    assert vectors.cut or octets is entry.vector


@given(rows)
@example(np.full(DIM, np.float32(1 / 3)))
@example(np.full(DIM, np.float32(1e-38)))
def test_json_decimals_read_back_as_the_same_float32(row: Row) -> None:
    """Nothing is lost between the tower and a client that parses JSON."""
    form = Vectors("float", None, DIM).form(entry_of(row))
    body = Answer.json({"embedding": form}).body
    assert np.array_equal(np.array(orjson.loads(body)["embedding"], np.float32), row)
    tenths = Vectors("float", None, DIM).form(entry_of(np.full(DIM, 0.1, np.float32)))
    assert Answer.json(tenths).body.startswith(b"[0.1,0.1")  # not 0.10000000149011612


@given(rows, st.integers(1, DIM - 1))
@example(np.array([0] * 8 + [0.5] * 8, np.float32), 8)
def test_a_cut_vector_is_unit_length_and_points_the_same_way(row: Row, dimensions: int) -> None:
    """The first numbers, renormalised: a dot product of two of them is a cosine."""
    head, entry = row[:dimensions].astype(np.float64), entry_of(row)
    cut = Vectors("float", dimensions, DIM).row(entry)
    assert entry == entry_of(row)  # what is kept stays as it was
    assert cut.dtype == np.float32
    assert cut.shape == (dimensions,)
    norm = np.linalg.norm(head)
    if norm == 0:  # there is no direction to scale, and NaN must not reach a client
        assert not cut.any()
    else:
        assert np.linalg.norm(cut.astype(np.float64)) == pytest.approx(1, abs=1e-6)
        assert cut.astype(np.float64) * norm == pytest.approx(head, abs=1e-6)


@given(st.lists(rows, max_size=4), st.integers(1, DIM))
def test_a_raw_answer_is_its_rows_one_after_another(vectors: list[Row], dimensions: int) -> None:
    """The shape in the headers is all that it takes to read the body."""
    form = Vectors("float", dimensions, DIM)
    answer = form.raw([entry_of(row) for row in vectors])
    headers = headers_of(answer)
    shape = [int(n) for n in headers[b"x-embedding-shape"].split(b",")]
    read = np.frombuffer(answer.body, "<f4").reshape(shape)
    assert shape == [len(vectors), dimensions]
    assert all(np.array_equal(a, form.row(entry_of(b))) for a, b in zip(read, vectors, strict=True))
    assert headers[b"x-embedding-dtype"] == b"float32-le"
    assert OCTETS in answer.headers
    assert JSON not in answer.headers


def test_a_json_answer_says_what_it_is() -> None:
    """Status 200 and the type, without a framework."""
    answer = Answer.json({"a": [1, None, "é"]})
    assert (answer.status, answer.headers) == (200, [JSON])
    assert orjson.loads(answer.body) == {"a": [1, None, "é"]}
    answer.headers.append((b"x-cache", b"miss"))
    assert Answer(b"").headers == [JSON]  # no answer's headers are another's


def test_an_error_has_the_form_that_every_route_shares() -> None:
    """Four fields, always all of them, as OpenAI clients expect."""
    answer = Answer.error(RequestInvalid("dimensions: too many", param="dimensions"))
    assert answer.status == 400
    assert orjson.loads(answer.body) == {
        "error": {
            "message": "dimensions: too many",
            "type": "invalid_request_error",
            "code": "invalid_request",
            "param": "dimensions",
        }
    }
    items = [{"index": 2, "code": "image_empty", "message": "The image has no bytes."}]
    assert orjson.loads(Answer.error(RequestInvalid(), items).body)["error"]["items"] == items
    assert b"items" not in Answer.error(RequestInvalid(), []).body  # none were wrong
    hidden = orjson.loads(Answer.error(ServiceError()).body)["error"]
    assert (hidden["code"], hidden["message"]) == ("internal", ServiceError.sentence)


@pytest.mark.parametrize(("error", "after"), [(Overloaded(), b"1"), (DeadlineExceeded(), b"")])
def test_an_error_that_may_pass_says_when_to_come_back(error: ServiceError, after: bytes) -> None:
    """Retry-After stands on a 429, and not on what waiting does not mend."""
    assert headers_of(Answer.error(error)).get(b"retry-after", b"") == after


def test_an_error_can_be_written_whatever_the_client_named() -> None:
    """Half an emoji is no text: it becomes a question mark, in the items as well."""
    error = RequestInvalid("\ud83c: there is no such option", param="a\udcffb")
    items = [{"index": 0, "code": "text_invalid", "message": "\ud800", "param": None}]
    said = orjson.loads(Answer.error(error, items).body)["error"]
    assert said["message"] == "?: there is no such option"
    assert said["param"] == "a?b"
    assert said["items"] == [{**items[0], "message": "?"}]


@given(st.lists(st.text(max_size=5), min_size=1, max_size=300), st.lists(rows, max_size=3))
@example(['"data":[]', "\\"], [])
def test_an_answer_in_turns_is_the_answer(words: list[str], some: list[Row]) -> None:
    """Byte for byte, wherever its lists stand and whatever its strings hold."""
    content = {"data": words, "x": {"y": words[0], "rows": [*some, None] * 70}, "z": [1], "": {}}
    for one in (content, words):
        answer = asyncio.run(Answer.json_in_turns(one))
        assert answer.body == Answer.json(one).body
        assert (answer.status, answer.headers) == (200, [JSON])


def quantized(type_: str, rows: Row, form: str = "float", cut: int | None = None) -> Small:
    """Rows in a type, as a request asks for it."""
    return Vectors(form, cut, DIM, type_).small([entry_of(row) for row in rows])


def sent(small: Small) -> list[list[float]]:
    """The codes as a client reads them out of JSON."""
    content: list[list[float]] = orjson.loads(Answer.json(small[0]).body)
    return content


@given(matrices)
def test_float16_is_each_number_rounded(rows: Row) -> None:
    """Half precision, by numpy's rounding, and JSON says it to the last digit."""
    assert np.array_equal(np.array(sent(quantized("float16", rows)), "<f2"), rows.astype("<f2"))


@given(matrices)
@example(np.zeros((2, DIM), np.float32))
@example(np.full((1, DIM), np.float32(1e-44)))
def test_int8_times_its_scale_is_the_vector(rows: Row) -> None:
    """To half a step, for every row by its own scale; also a row of zeros, and of near nothing."""
    small = quantized("int8", rows)
    codes = np.array(small[0])
    scales = np.array(small[1], np.float64)[:, None]
    assert np.abs(codes).max() <= 127
    assert (scales > 0).all()
    assert (np.abs(codes * scales - rows) <= scales * 0.5001).all()


@given(matrices)
def test_int8_uses_its_whole_range_without_an_offset(rows: Row) -> None:
    """The greatest number is at the end of the scale, and opposite vectors have opposite codes."""
    rows[:, 0] = 1
    there, back = (np.array(quantized("int8", one)[0]) for one in (rows, -rows))
    assert np.abs(there).max(axis=1).tolist() == [127] * len(rows)
    assert np.array_equal(there, -back)


@given(matrices)
def test_binary_is_the_signs_as_packbits_packs_them(rows: Row) -> None:
    """`numpy.unpackbits` of the answer is, number by number, whether it was above zero."""
    small = quantized("binary", rows)
    read = np.unpackbits(np.array(sent(small), np.uint8), axis=1)
    assert np.array_equal(read.astype(bool), rows > 0)
    assert small[1] == []


@pytest.mark.parametrize("type_", TYPES)
@given(rows=matrices)
def test_base64_and_raw_bytes_hold_what_json_says(type_: str, rows: Row) -> None:
    """Clients may switch the encoding and see the same codes."""
    said = np.array(sent(quantized(type_, rows)), TYPES[type_])
    text, _ = quantized(type_, rows, "base64")
    read_back = [np.frombuffer(base64.b64decode(one), TYPES[type_]) for one in text]
    assert np.array_equal(read_back, said)
    raw = Vectors("float", None, DIM, type_).raw([entry_of(row) for row in rows])
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
def test_a_cut_comes_before_the_type(type_: str, rows: Row) -> None:
    """The codes are those of the vector that float32 would give, cut and renormalised."""
    vectors = Vectors("float", 8, DIM, type_)
    cut = np.stack([vectors.row(entry_of(row)) for row in rows])
    whole = Vectors("float", None, 8, type_).small([entry_of(row) for row in cut])
    small = quantized(type_, rows, cut=8)
    assert (sent(small), small[1]) == (sent(whole), whole[1])


@pytest.mark.parametrize("type_", TYPES)
def test_a_refused_item_keeps_its_place(type_: str) -> None:
    """It is null among the vectors and among the scales, and its neighbours are what they were."""
    rows = np.linspace(-1, 1, 2 * DIM, dtype=np.float32).reshape(2, DIM)
    one, two = [entry_of(row) for row in rows]
    found: Sequence[Entry | None] = [None, one, None, two]
    forms, scales = Vectors("base64", None, DIM, type_).small(found)
    assert [one, two] == [entry_of(row) for row in rows]  # what is kept stays float32
    alone, by_scale = quantized(type_, rows, "base64")
    assert forms == [None, alone[0], None, alone[1]]
    assert scales == ([None, by_scale[0], None, by_scale[1]] if by_scale else [])


def test_headers_as_lines_are_those_of_the_pairs_and_the_length_of_the_body() -> None:
    """What goes over the wire is rendered once, and says the same."""
    answer = Answer(b"four", headers=[OCTETS, (b"x-cache", b"miss")])
    lines = answer.lines()
    pairs = [tuple(line.split(b": ", 1)) for line in lines.split(b"\r\n")[:-1]]
    assert pairs == [OCTETS, (b"x-cache", b"miss"), (b"content-length", b"4")]
    assert lines.endswith(b"\r\n")
    assert answer.lines() is lines
