"""Vectors → bytes: whatever form a request asked for, the same numbers come out."""

import asyncio
import base64
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

Row = np.ndarray[Any, np.dtype[np.float32]]
DIM = 8

numbers = st.floats(-1, 1, width=32, allow_subnormal=False)
rows = arrays(np.float32, DIM, elements=numbers)


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
@example(np.array([0] * 4 + [0.5] * 4, np.float32), 4)
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
    answer = Answer.raw([entry_of(row) for row in vectors], form)
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


def test_headers_as_lines_are_those_of_the_pairs_and_the_length_of_the_body() -> None:
    """What goes over the wire is rendered once, and says the same."""
    answer = Answer(b"four", headers=[OCTETS, (b"x-cache", b"miss")])
    lines = answer.lines()
    pairs = [tuple(line.split(b": ", 1)) for line in lines.split(b"\r\n")[:-1]]
    assert pairs == [OCTETS, (b"x-cache", b"miss"), (b"content-length", b"4")]
    assert lines.endswith(b"\r\n")
    assert answer.lines() is lines


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
