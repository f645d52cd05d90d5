"""Jobs become requests in each of the forms."""

import orjson
import pytest

from bench.load.connection import Address
from bench.load.route import Form, Route
from bench.load.workload import Caption, Job, Picture, drawings

ADDRESS = Address("127.0.0.1", 8080)
TEXTS = [Caption(text).stamped(tag) for tag, text in enumerate(("a red circle", 'a "blue" moon'))]
IMAGES = [Picture(data).stamped(tag) for tag, data in enumerate(drawings(0, 3))]
WORDS = [item.data.decode() for item in TEXTS]


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
