"""Jobs become requests in each of the forms."""

import base64
from typing import Any

import numpy as np
import orjson
import pytest

from bench.load.connection import Address
from bench.load.recording import Sample
from bench.load.route import Form, Judge, Route, Shelf, rows
from bench.load.workload import Caption, Job, Picture, drawings
from tests.support.recordings import sample

ADDRESS = Address("127.0.0.1", 8080)
TEXTS = [Caption(text).stamped(tag) for tag, text in enumerate(("a red circle", 'a "blue" moon'))]
IMAGES = [Picture(data).stamped(tag) for tag, data in enumerate(drawings(0, 3))]
WORDS = [item.data.decode() for item in TEXTS]
JSON = b"http/1.1 200 ok\r\ncontent-type: application/json\r\n"
UNIT = [[0.6, 0.8, 0.0], [0.0, 0.0, -1.0]]


def texts(many: int) -> Job:
    return Job("text", TEXTS[:many])


def images(many: int) -> Job:
    return Job("image", IMAGES[:many])


def sent(route: Route, job: Job) -> tuple[str, dict[str, str], bytes]:
    """The request line, the headers and the body."""
    head, _, body = route.request(job).partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    pairs = (one.partition(":") for one in lines)
    return line, {name.lower(): value.strip() for name, _, value in pairs}, body


@pytest.mark.parametrize("form", ["v1", "embed", "raw"])
@pytest.mark.parametrize("job", [texts(1), texts(2), images(1), images(3)])
def test_a_request_says_how_long_its_body_is(form: Form, job: Job) -> None:
    """To the byte; raw answers are asked for where they are wanted."""
    _, headers, body = sent(Route(ADDRESS, form), job)
    assert int(headers["content-length"]) == len(body)
    assert headers["host"] == "127.0.0.1:8080"
    assert headers["accept"] == f"application/{'octet-stream' if form == 'raw' else 'json'}"
    assert "authorization" not in headers


@pytest.mark.parametrize(
    ("form", "job", "path"),
    [
        ("v1", texts(1), "/v1/embeddings"),
        ("v1", images(1), "/v1/embeddings"),
        ("embed", texts(1), "/embed_text"),
        ("embed", images(2), "/embed_image"),
        ("raw", texts(1), "/v1/embeddings"),
        ("raw", images(1), "/embed_image"),
        ("raw", images(2), "/v1/embeddings"),
    ],
)
def test_each_form_has_its_paths(form: Form, job: Job, path: str) -> None:
    """Those of the interface; others can be given for a baseline, and a prefix before them all."""
    assert sent(Route(ADDRESS, form), job)[0] == f"POST {path} HTTP/1.1"
    prefixed = Address("127.0.0.1", 80, prefix="/api")
    assert Route(prefixed, form).path(job) == f"/api{path}"
    other = Route(prefixed, form, text_path="/t", image_path="/i")
    assert other.path(job) == f"/api/{job.kind[0]}"


@pytest.mark.parametrize(("place", "media_type"), [(0, "image/jpeg"), (2, "image/png")])
def test_raw_sends_a_single_picture_as_it_is(place: int, media_type: str) -> None:
    """No base64 on the way in or out."""
    _, headers, body = sent(Route(ADDRESS, "raw"), Job("image", [IMAGES[place]]))
    assert headers["content-type"] == media_type
    assert body == IMAGES[place].data


def test_a_model_that_the_server_wants_is_named() -> None:
    """With whatever is in its name; the rest of each form is read by a server elsewhere."""
    body = orjson.loads(sent(Route(ADDRESS, model='a "b"'), texts(1))[2])
    assert body == {"input": WORDS[0], "encoding_format": "base64", "model": 'a "b"'}


def octets(shape: str) -> bytes:
    """The head of a raw answer."""
    kind = "content-type: application/octet-stream"
    return f"http/1.1 200 ok\r\n{kind}\r\nx-embedding-shape: {shape}\r\n".encode()


def openai(*forms: Any) -> bytes:
    """In OpenAI form, last first."""
    return orjson.dumps({"data": [{"index": i, "embedding": e} for i, e in enumerate(forms)][::-1]})


def own(*vectors: Any) -> bytes:
    """In siglit's own form."""
    return orjson.dumps({"embeddings": vectors})


def raw(*vectors: list[float]) -> bytes:
    return np.asarray(vectors, "<f4").tobytes()


BODIES = {
    "base64": (JSON, openai(*(base64.b64encode(raw(one)).decode() for one in UNIT))),
    "floats": (JSON, openai(*UNIT)),
    "own": (JSON, own(*UNIT)),
    "raw": (octets("2,3"), raw(*UNIT)),
}


@pytest.mark.parametrize("form", BODIES)
def test_vectors_are_read_in_every_form_and_counted(form: str) -> None:
    """In the order of the items; more or fewer of them are a fault."""
    assert rows(*BODIES[form]) == pytest.approx(np.asarray(UNIT, np.float32))
    found = [Judge().fault(*BODIES[form], items) for items in (1, 2, 3)]
    assert found == ["too-many-vectors", None, "too-few-vectors"]


UNREADABLE = (
    b"", b"sorry", b"[]", b"{}", b'"words"', b'{"data":{}}', b'{"data":[{"index":0}]}',
    b'{"embedding":"###"}', b'{"embedding":"AAAAA==="}', b'{"embedding":"AAA="}',
    b'{"embedding":["a"]}', b'{"embedding":[[1.0]]}', b'{"embedding":[]}', b'{"embedding":1.0}',
)  # fmt: skip


@pytest.mark.parametrize("body", UNREADABLE)
def test_what_holds_no_vectors_is_unreadable(body: bytes) -> None:
    """Whatever it holds instead, nothing else is raised."""
    assert Judge().fault(JSON, body, 1) in ("unreadable-body", "too-few-vectors")


@pytest.mark.parametrize("shape", ["", "2", "2,4", "a,b", "3,3", "2,3,1"])
def test_octets_that_do_not_fit_their_shape_are_unreadable(shape: str) -> None:
    """Half an answer has a wrong length."""
    assert Judge().fault(octets(shape), BODIES["raw"][1], 2) == "unreadable-body"


JUDGED = [
    (JSON, orjson.dumps({"embedding": UNIT[0]}), 1, True, None),  # a single one may stand alone
    (JSON, own(UNIT[0], None), 2, True, "too-few-vectors"),  # null stands for an item that failed
    (JSON, own([1.0], [0.6, 0.8]), 2, True, "other-dimension"),  # a ragged list is no matrix
    *((JSON, own(UNIT[0], [n, 0.0, 0.0]), 2, True, "not-unit") for n in (0, 0.9, 0.998, 1.002, 7)),
    *((JSON, own([n, 0.0, 0.0]), 1, True, None) for n in (0.9995, 1.0005)),  # bfloat16 is no fault
    (JSON, own([3.0, 4.0]), 1, False, None),  # a baseline may leave lengths as they come
    *((octets("1,2"), raw([float(n), 0.0]), 1, False, "not-finite") for n in ("nan", "inf")),
]


@pytest.mark.parametrize(("head", "body", "items", "unit", "fault"), JUDGED)
def test_vectors_are_judged(
    head: bytes, body: bytes, items: int, unit: bool, fault: str | None
) -> None:
    """One for each item, of one dimension, finite, and of length 1 where that is asked for."""
    assert Judge(unit=unit).fault(head, body, items) == fault


def test_the_first_good_body_settles_the_dimension() -> None:
    """A server that changes it is wrong from then on."""
    judge = Judge()
    assert judge.fault(JSON, own([2.0, 0.0]), 1) == "not-unit"
    assert judge.dimension == 0
    assert judge.fault(JSON, own(*UNIT), 2) is None
    assert judge.dimension == 3
    assert judge.fault(JSON, own([1.0, 0.0]), 1) == "other-dimension"


GOOD = orjson.dumps({"embedding": [0.6, 0.8]})


def judged(room: int, many: int, body: bytes = GOOD) -> tuple[Shelf, list[Sample]]:
    """A shelf that was offered so many bodies, judged; it never held more than its room."""
    shelf, samples = Shelf(room), [sample(i) for i in range(many)]
    for one in samples:
        shelf.put(one, JSON, body)
        assert len(shelf) <= max(1, room // len(body))
    shelf.judge(Judge())
    return shelf, samples


def test_every_body_is_kept_while_there_is_room() -> None:
    """At low rates all are looked at, and good bodies leave their samples good."""
    shelf, samples = judged(1 << 20, 50)
    assert shelf.stride == 1
    assert all(one.checked and one.good for one in samples)


@pytest.mark.parametrize("room", [1, 2, 5, 13, 40])
def test_a_full_shelf_keeps_an_even_part(room: int) -> None:
    """Every n-th from first to last, not only the first ones."""
    shelf, samples = judged(room * len(GOOD), 500)
    kept = [one.number for one in samples if one.checked]
    assert shelf.stride > 1
    assert kept == list(range(0, 500, shelf.stride))
    assert len(shelf) == len(kept)
