"""Jobs become requests in each of the forms."""

import base64
from typing import Any

import orjson
import pytest

from bench.load.connection import Address
from bench.load.item import Caption, Picture
from bench.load.route import Form, Route
from bench.load.workload import Job, drawings

ADDRESS = Address("127.0.0.1", 8080)
TEXTS = [Caption(text).stamped(tag) for tag, text in enumerate(("a red circle", 'a "blue" moon'))]
IMAGES = [Picture(data).stamped(tag) for tag, data in enumerate(drawings(0, 3))]


def texts(many: int) -> Job:
    """A job of texts."""
    return Job("text", TEXTS[:many])


def images(many: int) -> Job:
    """A job of images."""
    return Job("image", IMAGES[:many])


def sent(route: Route, job: Job) -> tuple[str, dict[str, str], bytes]:
    """The request line, the headers and the body."""
    head, _, body = route.request(job).partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    pairs = (one.partition(":") for one in lines)
    return line, {name.lower(): value.strip() for name, _, value in pairs}, body


def content(route: Route, job: Job) -> Any:
    """The JSON body."""
    return orjson.loads(sent(route, job)[2])


def words(job: Job) -> list[str]:
    """Its texts."""
    return [item.data.decode() for item in job.items]


def plain(uri: str) -> bytes:
    """The bytes in a data URI."""
    return base64.b64decode(uri.partition(",")[2], validate=True)


@pytest.mark.parametrize("form", ["v1", "embed", "raw"])
@pytest.mark.parametrize("job", [texts(1), texts(2), images(1), images(3)])
def test_a_request_says_how_long_its_body_is(form: Form, job: Job) -> None:
    """To the byte."""
    _, headers, body = sent(Route(ADDRESS, form), job)
    assert int(headers["content-length"]) == len(body)
    assert headers["host"] == "127.0.0.1:8080"


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
    """Those of the interface."""
    assert sent(Route(ADDRESS, form), job)[0] == f"POST {path} HTTP/1.1"


def test_other_paths_can_be_given_for_a_baseline() -> None:
    """One for texts, one for images."""
    route = Route(ADDRESS, "embed", text_path="/t", image_path="/i")
    assert sent(route, texts(1))[0] == "POST /t HTTP/1.1"
    assert sent(route, images(1))[0] == "POST /i HTTP/1.1"


def test_the_prefix_of_the_address_stands_before_every_path() -> None:
    """A server behind a proxy may live below one."""
    route = Route(Address("127.0.0.1", 80, prefix="/api"), text_path="/t")
    assert route.path(texts(1)) == "/api/t"
    assert route.path(images(1)) == "/api/v1/embeddings"


def test_v1_asks_for_base64() -> None:
    """OpenAI form; one text stands alone, several in a list."""
    one, two = (content(Route(ADDRESS), texts(many)) for many in (1, 2))
    assert one == {"input": words(texts(1))[0], "encoding_format": "base64"}
    assert two == {"input": words(texts(2)), "encoding_format": "base64"}


def test_v1_sends_pictures_as_data_uris() -> None:
    """In a list, with the bytes they have."""
    body = content(Route(ADDRESS), images(3))
    assert [plain(uri) for uri in body["input"]] == [item.data for item in IMAGES]
    assert [uri[:16] for uri in body["input"]] == ["data:image/jpeg;", "data:image/jpeg;",
                                                    "data:image/png;b"]  # fmt: skip


def test_v1_names_a_model_where_one_is_given() -> None:
    """Other servers insist on it."""
    assert content(Route(ADDRESS, model='a "b"'), texts(1))["model"] == 'a "b"'


def test_embed_sends_the_forms_of_the_seed() -> None:
    """`text` or `texts`, `image` or `images`, and nothing else."""
    route = Route(ADDRESS, "embed")
    assert content(route, texts(1)) == {"text": words(texts(1))[0]}
    assert content(route, texts(2)) == {"texts": words(texts(2))}
    assert plain(content(route, images(1))["image"]) == IMAGES[0].data
    assert list(map(plain, content(route, images(2))["images"])) == [i.data for i in IMAGES[:2]]


def test_raw_asks_for_octets() -> None:
    """The others for JSON."""
    assert sent(Route(ADDRESS, "raw"), texts(1))[1]["accept"] == "application/octet-stream"
    assert sent(Route(ADDRESS, "v1"), texts(1))[1]["accept"] == "application/json"


@pytest.mark.parametrize(("place", "media_type"), [(0, "image/jpeg"), (2, "image/png")])
def test_raw_sends_a_single_picture_as_it_is(place: int, media_type: str) -> None:
    """No base64 on the way in or out."""
    _, headers, body = sent(Route(ADDRESS, "raw"), Job("image", [IMAGES[place]]))
    assert headers["content-type"] == media_type
    assert body == IMAGES[place].data


def test_a_key_is_sent_as_a_bearer_token() -> None:
    """Only where there is one."""
    assert sent(Route(ADDRESS, key="k"), texts(1))[1]["authorization"] == "Bearer k"
    assert "authorization" not in sent(Route(ADDRESS), texts(1))[1]


def test_more_headers_can_be_sent() -> None:
    """Such as one that keeps the cache out."""
    route = Route(ADDRESS, headers=("Cache-Control: no-cache", "X-Other: 1"))
    headers = sent(route, texts(1))[1]
    assert headers["cache-control"] == "no-cache"
    assert headers["x-other"] == "1"
