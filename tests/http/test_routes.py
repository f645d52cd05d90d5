"""Routes: a body in, an answer out, over the real embedder and the demo checkpoint's facts."""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from docs.openapi.answers import EmbeddingsResponse, EmbedResponse, ModelCard
from litapi import errors
from litapi.http.answer import Answer
from litapi.http.fetch import Fetcher, FetchPolicy
from litapi.http.replay import Replay
from litapi.messages import Kind
from tests.support.desk import (
    BAD,
    BLUE,
    DEMO,
    OCTETS,
    RED,
    Desk,
    Desks,
    b64,
    decimals,
    header,
    row_of,
    uri,
)
from tests.support.forms import FORMS, body_for
from tests.support.wire import MULTIPART, form_data


def content_of(answer: Answer, form: type[BaseModel]) -> Any:
    """The JSON of an answer, which must have the documented form and nothing beside it."""
    content = orjson.loads(answer.body)
    shown = form.model_validate(content).model_dump(exclude_unset=True)
    assert shown == content
    return content


ABC = "data:image/png;base64,QUJD"
PARTS: list[tuple[Any, Kind, str | bytes]] = [
    ("A Cat", "text", "a cat"),
    ("QUJD", "text", "qujd"),
    ("data: and base64, a text", "text", "data: and base64, a text"),
    ({"text": ABC}, "text", ABC.lower()),
    ({"type": "text", "text": "dog"}, "text", "dog"),
    (ABC, "image", b"ABC"),
    ("DATA:IMAGE/PNG;BASE64,QUJD", "image", b"ABC"),
    ("data:application/octet-stream;base64,QUJD", "image", b"ABC"),
    ("data:;base64,QUJD", "image", b"ABC"),
    ("DATA:text/plain;charset=x;BASE64,QUJD", "image", b"ABC"),
    (uri(RED), "image", RED),
    ({"image": b64(BLUE)}, "image", BLUE),
    ({"type": "image", "image": "QUJD"}, "image", b"ABC"),
    ({"image_url": ABC}, "image", b"ABC"),
    ({"type": "image_url", "image_url": {"url": ABC, "detail": "low"}}, "image", b"ABC"),
]


def test_a_mixed_input_comes_back_in_its_order(desk: Desk) -> None:
    """Texts and images of every spelling, each with its own vector at its own index.

    Only a data URI in base64 makes an image of a bare string; an object says what it is.
    """
    body = {"input": [part for part, _, _ in PARTS]}
    content = content_of(desk.post("/v1/embeddings", body), EmbeddingsResponse)
    assert [one["index"] for one in content["data"]] == list(range(len(PARTS)))
    expected = [row_of(kind, payload) for _, kind, payload in PARTS]
    assert [one["embedding"] for one in content["data"]] == expected
    assert content["model"] == DEMO.name
    count = sum(len(payload) for _, _, payload in PARTS)  # patches of images, cached or not
    assert content["usage"] == {"prompt_tokens": count, "total_tokens": count}


def test_any_bad_item_refuses_the_request_and_names_every_one(desk: Desk) -> None:
    """The client mends all of them at once; the good ones are already in the cache."""
    parts = ["a", "", uri(BAD), uri(RED), {"image": "?"}]
    refused = desk.refusal("/v1/embeddings", {"input": parts})
    assert [(item["index"], item["code"]) for item in refused.items] == [
        (1, "text_empty"),
        (2, "image_undecodable"),
        (4, "image_base64_invalid"),
    ]
    assert (refused.error.code, refused.error.status) == ("invalid_items", 422)
    assert refused.error.param == "input[1]"
    desk.towers.take()
    answer = desk.post("/v1/embeddings", {"input": ["a", uri(RED)]})
    assert header(answer, b"x-cache") == b"hit-l1,hit-l1"
    assert desk.towers.take() == []


@pytest.mark.parametrize(
    ("given", "code", "status", "params"),
    [
        (["a", {"image": "http://a.example/b"}], "image_url_disabled", 403, ["input[1]"]),
        ("", "text_empty", 422, ["input"]),
        (["good", "bad"], "item_internal", 500, ["input[1]"]),
        (["good", "late", "bad"], "deadline_exceeded", 504, ["input[1]", "input[2]"]),
    ],
)
def test_bad_items_of_one_kind_refuse_the_request_as_that(
    desk: Desk, given: Any, code: str, status: int, params: list[str]
) -> None:
    """The status says more than that something was wrong; a single input has no [0]."""
    desk.towers.refuse["late"] = "deadline_exceeded"
    refused = desk.refusal("/v1/embeddings", {"input": given})
    assert (refused.error.code, refused.error.status) == (code, status)
    assert refused.error.param == params[0]
    assert [item["param"] for item in refused.items] == params


@pytest.mark.parametrize("path", FORMS)
def test_another_model_is_refused_before_any_work(desk: Desk, path: str) -> None:
    """A client that meant another model would get vectors that fit nowhere."""
    body = {**body_for(path), "model": "text-embedding-3-small"}
    assert desk.denial(errors.ModelUnknown, path, body).param == "model"
    assert desk.post(path, {**body, "model": DEMO.name}).status == 200


@pytest.mark.parametrize("path", [path for path in FORMS if path != "/embed_text"])
def test_patches_reach_the_image_tower(desk: Desk, path: str) -> None:
    """And are part of what the cache knows the image by, and no text by."""
    asked: list[list[tuple[str, int]]] = []
    for patches in (64, 64, None, DEMO.max_num_patches):
        desk.towers.take()
        desk.post(path, {**body_for(path), "max_num_patches": patches})
        asked.append([(kind, job.max_num_patches) for kind, job in desk.towers.jobs])
    first, again, plain, by_number = asked
    assert dict(first)["image"] == 64
    assert [kind for kind, _ in plain] == ["image"]
    assert again == by_number == []


@pytest.mark.parametrize("path", FORMS)
def test_a_model_of_fixed_resolution_has_no_patches_to_choose(desks: Desks, path: str) -> None:
    """An option that would do nothing is refused instead of ignored."""
    desk, body = desks(replace(DEMO, model_type="siglip")), body_for(path)
    refusal = desk.denial(errors.RequestInvalid, path, {**body, "max_num_patches": 64})
    assert refusal.param == "max_num_patches"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": ["a", "b", "c"]}),
        ("/embed_text", {"texts": ["a", "b", "c"]}),
        ("/embed_image", {"images": ["QQ==", "Qg==", "Qw=="]}),
        ("/embed_image", {"urls": ["http://a", "http://b", "http://c"]}),
        ("/score", {"texts": ["a", "b"], "images": ["QQ=="]}),
        ("/classify", {"image": "QQ==", "labels": ["a", "b"]}),
        ("/v2/embed", {"texts": ["a", "b", "c"]}),
        ("/v1/multimodalembeddings", {"inputs": [{"content": ["a"]}] * 3}),
        ("/embed", {"inputs": ["a", "b", "c"]}),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["a", "b"]}}),
        ("/rerank", {"query": "a", "documents": ["a", "b"]}),
    ],
)
def test_too_many_items_are_refused_on_every_route(desks: Desks, path: str, body: Any) -> None:
    """The limit counts all items of a request, texts and images together."""
    refusal = desks(max_items=2).denial(errors.TooManyItems, path, body)
    assert "has 3 items; this server accepts 2 " in refusal.message


@pytest.mark.parametrize(
    ("path", "body", "params"),
    [
        ("/embed_text", {"text": ""}, ["text"]),
        ("/embed_text", {"texts": ["", ""]}, ["texts[0]", "texts[1]"]),
        ("/embed_image", {"image": "?"}, ["image"]),
        ("/embed_image", {"images": ["?", b64(BAD)]}, ["images[0]", "images[1]"]),
        ("/embed_image", {"url": "http://a"}, ["url"]),
        ("/embed_image", {"urls": ["http://a", "http://b"]}, ["urls[0]", "urls[1]"]),
        ("/score", {"texts": ["a", ""], "images": [b64(RED)]}, ["texts[1]"]),
        ("/score", {"texts": ["a", "b"], "images": [b64(RED), b64(BAD)]}, ["images[1]"]),
        ("/classify", {"image": b64(BAD), "labels": ["a"]}, ["image"]),
        ("/classify", {"image": "?", "labels": ["a"]}, ["image"]),
        (
            "/classify",
            {"image": b64(RED), "labels": ["a", ""], "template": "{label}"},
            ["labels[1]"],
        ),
        ("/v2/embed", {"images": [b64(RED), b64(BAD)]}, ["images[1]"]),
        ("/embed", {"inputs": ""}, ["inputs"]),
        (
            "/rerank",
            {"query": {"image": b64(BAD)}, "documents": ["a", "", {"image": "?"}]},
            ["query", "documents[1]", "documents[2]"],
        ),
        ("/rerank", {"query": "a", "texts": ["a", ""]}, ["texts[1]"]),
    ],
)
def test_a_refused_item_is_named_by_the_field_it_stood_in(
    desk: Desk, path: str, body: dict[str, Any], params: list[str]
) -> None:
    """Where one would reach for it; a 200 without a vector, or with holes in a matrix, is none."""
    refused = desk.refusal(path, body)
    assert refused.error.param == params[0]
    assert [item["param"] for item in refused.items] == params


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embed_text"])
@pytest.mark.parametrize("more", [{}, {"encoding_format": "base64"}])
def test_the_default_type_adds_nothing_to_an_answer(desk: Desk, path: str, more: Any) -> None:
    """Asked for or not, float32 is answered byte for byte as it always was, and is what is kept."""
    body = {**body_for(path), **more}
    desk.post(path, {**body, "embedding_type": "binary"})
    plain = desk.post(path, body)
    assert desk.post(path, {**body, "embedding_type": "float32"}).body == plain.body
    assert b"scale" not in plain.body


def test_every_int8_vector_comes_with_its_scale(desk: Desk) -> None:
    """Beside it in the OpenAI form, in a list of their own elsewhere, null for a refused item."""
    body: dict[str, Any] = {"embedding_type": "int8", "dimensions": 8}
    floats = desk.json("/v1/embeddings", {"input": ["a", "b"], "dimensions": 8})["data"]
    answer = desk.post("/v1/embeddings", {"input": ["a", "b"], **body})
    data = content_of(answer, EmbeddingsResponse)["data"]
    for one, whole in zip(data, floats, strict=True):
        numbers = [n * one["scale"] for n in one["embedding"]]
        assert numbers == pytest.approx(whole["embedding"], abs=0.004)
    scales = [one["scale"] for one in data]
    many = content_of(desk.post("/embed_text", {"texts": ["a", "", "b"], **body}), EmbedResponse)
    assert many["scales"] == [scales[0], None, scales[1]]
    assert many["embeddings"][1] is None
    single = content_of(desk.post("/embed_text", {"text": "b", **body}), EmbedResponse)
    assert single["scale"] == scales[1]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embed_text"])
@pytest.mark.parametrize(("size", "words"), [(DEMO.dim + 1, f"{DEMO.dim}"), (12, "multiple of 8")])
def test_a_size_that_no_vector_has_is_refused(desk: Desk, path: str, size: int, words: str) -> None:
    """Padding would make another vector, and distances of bits that mean nothing."""
    body = {**body_for(path), "embedding_type": "binary"}
    refusal = desk.denial(errors.RequestInvalid, path, {**body, "dimensions": size})
    assert refusal.param == "dimensions"
    assert words in refusal.message
    assert desk.post(path, {**body, "dimensions": 16}).status == 200


def test_the_headers_say_what_the_cache_did(desk: Desk) -> None:
    """One word for each item, in order."""
    first = desk.post("/embed_text", {"texts": ["a", "b", "a"]})
    again = desk.post("/embed_text", {"texts": ["b", "c"]})
    assert header(first, b"x-cache") == b"miss,miss,join"
    assert header(again, b"x-cache") == b"hit-l1,miss"
    assert b"infer;dur=1.000" in header(first, b"server-timing")


def test_one_text_is_answered_as_one_and_a_list_as_a_list(desk: Desk) -> None:
    """Also a list of one."""
    content = content_of(desk.post("/embed_text", {"text": "A Cat"}), EmbedResponse)
    assert content == {
        "embedding": row_of("text", "a cat"),
        "dimension": DEMO.dim,
        "model": DEMO.name,
        "cached": False,
        "truncated": False,
    }
    again = content_of(desk.post("/embed_text", {"text": "a cat"}), EmbedResponse)
    assert again == {**content, "cached": True}
    many = content_of(desk.post("/embed_text", {"texts": ["a", "a cat"]}), EmbedResponse)
    assert many["embeddings"] == [row_of("text", "a"), row_of("text", "a cat")]
    assert (many["cached"], many["truncated"]) == ([False, True], [False, False])
    assert many["errors"] == []
    one = content_of(desk.post("/embed_text", {"texts": ["a"]}), EmbedResponse)
    assert one["embeddings"] == [row_of("text", "a")]


def test_an_image_has_one_vector_however_it_was_sent(desk: Desk) -> None:
    """JSON, form, raw and OpenAI form share the cache entry."""
    one = desk.post("/embed_image", {"image": b64(RED)})
    assert content_of(one, EmbedResponse)["embedding"] == row_of("image", RED)
    answers = [
        desk.post("/embed_image", {"image": uri(RED)}),
        desk.post("/embed_image", {"images": [uri(RED)]}),
        desk.post("/embed_image", RED, {"content-type": "image/jpeg"}),
        desk.post("/embed_image", form_data(("a", RED, "a")), MULTIPART),
        desk.post("/v1/embeddings", {"input": [{"image": b64(RED)}]}),
    ]
    assert {header(answer, b"x-cache") for answer in answers} == {b"hit-l1"}
    assert len(desk.towers.jobs) == 1


def test_raw_rows_leave_no_room_for_null(desk: Desk) -> None:
    """A bad item refuses the whole of an octet-stream answer, or its rows would be miscounted."""
    refused = desk.refusal("/embed_image", {"images": [b64(RED), "?"]}, headers=OCTETS)
    assert [item["index"] for item in refused.items] == [1]
    answer = desk.post("/embed_image", {"images": [b64(RED), b64(BLUE)]}, OCTETS)
    assert decimals(answer.body) == row_of("image", RED) + row_of("image", BLUE)
    assert header(answer, b"content-type") == b"application/octet-stream"
    assert header(answer, b"x-cache") == b"hit-l1,miss"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/embed_text", {}),
        ("/embed_text", {"text": "a", "texts": ["b"]}),
        ("/embed_image", {}),
        ("/embed_image", {"image": "QQ==", "url": "http://a"}),
        ("/embed_image", {"images": ["QQ=="], "urls": ["http://a"]}),
    ],
)
def test_exactly_one_way_of_sending_is_expected(desk: Desk, path: str, body: Any) -> None:
    """Two would leave it open which one is answered."""
    assert "exactly one of" in desk.denial(errors.RequestInvalid, path, body).message


class Web(Fetcher):
    """What stands at every URL, without a network."""

    def __init__(self, image: bytes) -> None:
        super().__init__(FetchPolicy(max_bytes=1000, any_public=True))
        self.image = image

    async def fetch_all(
        self, urls: Sequence[str], client: Hashable = None
    ) -> list[bytes | errors.ItemError]:
        assert isinstance(client, bytes)  # who asks is always said
        return [self.image for _ in urls]


URL = "https://a.example/b.png"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/embed_image", {"url": URL}),
        ("/embed_image", {"images": [URL]}),
        ("/v1/embeddings", {"input": ["a", {"image": URL}]}),
        ("/score", {"texts": ["a"], "images": [URL]}),
        ("/classify", {"image": URL, "labels": ["a", "b"]}),
    ],
)
def test_an_answer_about_a_url_is_not_given_again(desks: Desks, path: str, body: Any) -> None:
    """The vectors are in the cache by content, but the URL may bring other content next time."""
    web, replay = Web(RED), Replay(1 << 20)
    desk = desks(fetcher=web)
    desk.table = {name: replay.over(route) for name, route in desk.table.items()}
    headers = {"content-length": "10"}
    first, again = (desk.post(path, body, headers) for _ in range(2))
    assert set(header(again, b"x-cache").split(b",")) == {b"hit-l1"}
    assert again.hits == len(replay.kept) == 0
    web.image = BLUE
    other = desk.post(path, body, headers)
    assert b"miss" in header(other, b"x-cache")
    assert other.body != first.body


def test_a_template_is_filled_and_nothing_else_in_it_is(desk: Desk) -> None:
    """It is no format string: braces of other kinds stay."""
    template = "{label} {0} {{label}} {label!r}"
    desk.post("/classify", {"image": b64(RED), "labels": ["{0}x"], "template": template})
    assert dict(desk.towers.sent)["text"] == ["{0}x {0} {{0}x} {label!r}"]


@pytest.mark.parametrize("path", FORMS)
def test_a_body_of_the_wrong_kind_is_refused_on_every_route(desk: Desk, path: str) -> None:
    """By what is wrong with it: type, JSON or size; and as a full server says."""
    desk.denial(errors.MediaTypeUnsupported, path, b"{}", {"content-type": "application/xml"})
    desk.denial(errors.JsonInvalid, path, b"{")
    desk.denial(errors.BodyTooLarge, path, body_for(path), limit=4)
    desk.towers.failure = errors.Overloaded()
    with pytest.raises(errors.Overloaded):
        desk.post(path, body_for(path))


@pytest.mark.parametrize("name", [DEMO.name, "google/siglip2-base"])
def test_a_model_is_found_by_its_name(desks: Desks, name: str) -> None:
    """Slashes of a hub name included; another name is not found."""
    desk = desks(replace(DEMO, name=name))
    assert content_of(desk.get(f"/v1/models/{name}"), ModelCard)["id"] == name
    with pytest.raises(errors.ModelUnknown):
        desk.get("/v1/models/another")


def test_info_is_what_the_service_says(desk: Desk) -> None:
    """The route adds nothing and leaves nothing out."""
    assert orjson.loads(desk.get("/info").body) == orjson.loads(orjson.dumps(desk.service.info()))


def test_every_documented_route_that_embeds_is_in_the_table(desk: Desk) -> None:
    """And none beside them."""
    assert {path for method, path in desk.table if method == "POST"} == set(FORMS)
    facts = {path for method, path in desk.table if method == "GET"}
    assert facts == {"/v1/models", "/v1/models/", "/info"}
