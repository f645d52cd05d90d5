"""Bodies that are right, and each way in which they can be wrong."""

import base64
from typing import Any

import numpy as np
import orjson
import pytest

from bench.load.answer import Judge, Wrong, rows

JSON = b"http/1.1 200 ok\r\ncontent-type: application/json\r\n"
UNIT = [[0.6, 0.8, 0.0], [0.0, 0.0, -1.0]]


def octets(shape: str) -> bytes:
    """The head of a raw answer."""
    kind = "content-type: application/octet-stream"
    return f"http/1.1 200 ok\r\n{kind}\r\nx-embedding-shape: {shape}\r\n".encode()


def openai(vectors: list[list[float]], as_base64: bool = True) -> bytes:
    """In OpenAI form, last first."""

    def form(one: list[float]) -> Any:
        return base64.b64encode(np.asarray(one, "<f4").tobytes()).decode() if as_base64 else one

    data = [{"index": i, "embedding": form(one)} for i, one in enumerate(vectors)]
    return orjson.dumps({"data": data[::-1]})


def own(vectors: Any) -> bytes:
    """In siglit's own form."""
    return orjson.dumps({"embeddings": vectors})


BODIES = {
    "base64": (JSON, openai(UNIT)),
    "floats": (JSON, openai(UNIT, as_base64=False)),
    "own": (JSON, own(UNIT)),
    "raw": (octets("2,3"), np.asarray(UNIT, "<f4").tobytes()),
}


@pytest.mark.parametrize("form", BODIES)
def test_vectors_are_read_in_every_form(form: str) -> None:
    """In the order of the items."""
    assert rows(*BODIES[form]) == pytest.approx(np.asarray(UNIT, np.float32))


@pytest.mark.parametrize("form", BODIES)
def test_a_right_body_has_no_fault(form: str) -> None:
    """Two unit vectors for two items."""
    assert Judge().fault(*BODIES[form], 2) is None


@pytest.mark.parametrize("form", BODIES)
def test_fewer_vectors_than_items_are_a_fault(form: str) -> None:
    """An item was lost."""
    assert Judge().fault(*BODIES[form], 3) == "too-few-vectors"


@pytest.mark.parametrize("form", BODIES)
def test_more_vectors_than_items_are_a_fault(form: str) -> None:
    """Nobody knows which is whose."""
    assert Judge().fault(*BODIES[form], 1) == "too-many-vectors"


def test_a_single_vector_may_stand_alone() -> None:
    """As `embedding`."""
    assert Judge().fault(JSON, orjson.dumps({"embedding": UNIT[0]}), 1) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"sorry",
        b"[]",
        b"{}",
        b'"words"',
        b'{"data":{}}',
        b'{"data":[{"index":0}]}',
        b'{"embedding":"###"}',
        b'{"embedding":"AAAAA==="}',
        b'{"embedding":"AAA="}',
        b'{"embedding":["a"]}',
        b'{"embedding":[[1.0]]}',
        b'{"embedding":[]}',
        b'{"embedding":1.0}',
    ],
)
def test_what_holds_no_vectors_is_unreadable(body: bytes) -> None:
    """Whatever it holds instead, nothing else is raised."""
    assert Judge().fault(JSON, body, 1) in ("unreadable-body", "too-few-vectors")


@pytest.mark.parametrize("shape", ["", "2", "2,4", "a,b", "3,3", "2,3,1"])
def test_octets_that_do_not_fit_their_shape_are_unreadable(shape: str) -> None:
    """Half an answer has a wrong length."""
    assert Judge().fault(octets(shape), BODIES["raw"][1], 2) == "unreadable-body"


def test_a_null_among_the_vectors_is_a_lost_item() -> None:
    """As siglit's own form has it for an item that failed."""
    assert Judge().fault(JSON, own([UNIT[0], None]), 2) == "too-few-vectors"


@pytest.mark.parametrize("length", [0.0, 0.9, 0.998, 1.002, 7.5])
def test_a_vector_of_another_length_is_a_fault(length: float) -> None:
    """Even one among good ones."""
    assert Judge().fault(JSON, own([UNIT[0], [length, 0.0, 0.0]]), 2) == "not-unit"


@pytest.mark.parametrize("length", [0.9995, 1.0005])
def test_a_length_that_is_off_by_rounding_is_forgiven(length: float) -> None:
    """bfloat16 is no fault."""
    assert Judge().fault(JSON, own([[length, 0.0, 0.0]]), 1) is None


def test_lengths_do_not_matter_where_they_were_waived() -> None:
    """A baseline may leave them as they come."""
    assert Judge(unit=False).fault(JSON, own([[3.0, 4.0]]), 1) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_a_fault(value: float) -> None:
    """Waived lengths do not excuse them."""
    body = np.asarray([[value, 0.0]], "<f4").tobytes()
    assert Judge(unit=False).fault(octets("1,2"), body, 1) == "not-finite"


def test_the_first_good_body_settles_the_dimension() -> None:
    """A server that changes it is wrong from then on."""
    judge = Judge()
    assert judge.fault(JSON, own([[2.0, 0.0]]), 1) == "not-unit"
    assert judge.dimension == 0
    assert judge.fault(JSON, own(UNIT), 2) is None
    assert judge.dimension == 3
    assert judge.fault(JSON, own([[1.0, 0.0]]), 1) == "other-dimension"


def test_a_dimension_can_be_demanded() -> None:
    """Then the first body counts too."""
    assert Judge(dimension=4).fault(JSON, own(UNIT), 2) == "other-dimension"


def test_vectors_of_one_body_share_a_dimension() -> None:
    """A ragged list is no matrix."""
    with pytest.raises(Wrong, match="other-dimension"):
        rows(JSON, own([[1.0], [0.6, 0.8]]))
