"""Routes: a body in, an answer out, over the real embedder and the demo checkpoint's facts.

The towers are the stand-in of test_embedder: the right vector of every item is known, so every
answer is checked number by number.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from docs.openapi.answers import (
    ClassifyResponse,
    EmbeddingsResponse,
    EmbedResponse,
    ModelCard,
    ScoreResponse,
)
from litapi.errors import (
    BodyTooLarge,
    ItemError,
    JsonInvalid,
    MediaTypeUnsupported,
    ModelUnknown,
    Overloaded,
    RequestInvalid,
    TooManyItems,
)
from litapi.http.answer import Answer
from litapi.http.fetch import Fetcher, FetchPolicy
from litapi.http.replay import Replay
from tests.support.desk import (
    BAD,
    BLUE,
    DEMO,
    OCTETS,
    RED,
    Desk,
    b64,
    decimals,
    dot,
    header,
    row_of,
    uri,
)
from tests.support.form_data import MULTIPART, form_data
from tests.support.forms import FORMS, body_for


def content_of(answer: Answer, form: type[BaseModel]) -> Any:
    """The JSON of an answer, which must have the documented form and nothing beside it."""
    content = orjson.loads(answer.body)
    shown = form.model_validate(content).model_dump(exclude_unset=True)
    assert shown == content
    return content


def test_a_mixed_input_comes_back_in_its_order(desk: Desk) -> None:
    """Texts and images of every spelling, each with its own vector at its own index."""
    parts = ["A Cat", uri(RED), {"text": "dog"}, {"image": b64(BLUE)}, {"image_url": uri(RED)}]
    content = content_of(desk.post("/v1/embeddings", {"input": parts}), EmbeddingsResponse)
    assert [one["index"] for one in content["data"]] == [0, 1, 2, 3, 4]
    assert [one["embedding"] for one in content["data"]] == [
        row_of("text", "a cat"),
        row_of("image", RED),
        row_of("text", "dog"),
        row_of("image", BLUE),
        row_of("image", RED),
    ]
    assert content["model"] == DEMO.name
    count = sum(map(len, ("a cat", "dog", RED, BLUE, RED)))  # patches of images, cached or not
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


@pytest.mark.parametrize("dimensions", [1, 3, DEMO.dim])
def test_a_shortened_vector_is_unit_length(desk: Desk, dimensions: int) -> None:
    """The first numbers of the whole one, renormalised, in every form alike."""
    body = {"text": "a cat", "dimensions": dimensions}
    floats = content_of(desk.post("/embed_text", body), EmbedResponse)
    raw = desk.post("/embed_text", body, OCTETS)
    assert floats["dimension"] == len(floats["embedding"]) == dimensions
    assert math.dist(floats["embedding"], [0] * dimensions) == pytest.approx(1, abs=1e-6)
    assert decimals(raw.body) == floats["embedding"]
    assert header(raw, b"x-embedding-shape") == b"1,%d" % dimensions
    whole = row_of("text", "a cat")
    assert floats["embedding"][0] * whole[0] > 0


def test_more_dimensions_than_the_model_has_are_refused(desk: Desk) -> None:
    """Padding with zeros would be a vector that no other server gives."""
    with pytest.raises(RequestInvalid) as refusal:
        desk.post("/embed_text", {"text": "a", "dimensions": DEMO.dim + 1})
    assert refusal.value.param == "dimensions"
    assert str(DEMO.dim) in refusal.value.message
    assert desk.towers.sent == []


@pytest.mark.parametrize("path", FORMS)
def test_another_model_is_refused_before_any_work(desk: Desk, path: str) -> None:
    """A client that meant another model would get vectors that fit nowhere."""
    with pytest.raises(ModelUnknown) as refusal:
        desk.post(path, {**body_for(path), "model": "text-embedding-3-small"})
    assert refusal.value.param == "model"
    assert desk.towers.sent == []
    assert desk.post(path, {**body_for(path), "model": DEMO.name}).status == 200


@pytest.mark.parametrize("path", [path for path in FORMS if path != "/embed_text"])
def test_patches_reach_the_image_tower(desk: Desk, path: str) -> None:
    """And are part of what the cache knows the image by."""
    desk.post(path, {**body_for(path), "max_num_patches": 64})
    jobs = [job for kind, job in desk.towers.jobs if kind == "image"]
    assert [job.max_num_patches for job in jobs] == [64]
    desk.towers.take()
    desk.post(path, {**body_for(path), "max_num_patches": 64})
    assert desk.towers.take() == []
    desk.post(path, body_for(path))
    assert [kind for kind, _ in desk.towers.take()] == ["image"]


@pytest.mark.parametrize("path", FORMS)
def test_a_model_of_fixed_resolution_has_no_patches_to_choose(path: str) -> None:
    """An option that would do nothing is refused instead of ignored."""
    desk = Desk(replace(DEMO, model_type="siglip"))
    with pytest.raises(RequestInvalid) as refusal:
        desk.post(path, {**body_for(path), "max_num_patches": 64})
    desk.close()
    assert refusal.value.param == "max_num_patches"
    assert desk.towers.sent == []


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
def test_too_many_items_are_refused_on_every_route(path: str, body: Any) -> None:
    """The limit counts all items of a request, texts and images together."""
    desk = Desk(max_items=2)
    with pytest.raises(TooManyItems):
        desk.post(path, body)
    desk.close()
    assert desk.towers.sent == []


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
    ],
)
def test_a_refused_item_is_named_by_the_field_it_stood_in(
    desk: Desk, path: str, body: dict[str, Any], params: list[str]
) -> None:
    """Where one would reach for it; a 200 without a vector, or with holes in a matrix, is none."""
    refused = desk.refusal(path, body)
    assert refused.error.param == params[0]
    assert [item["param"] for item in refused.items] == params


def test_the_default_type_adds_nothing_to_an_answer(desk: Desk) -> None:
    """Asked for or not, float32 is answered byte for byte as it always was, and is what is kept."""
    bodies: dict[str, dict[str, Any]] = {
        "/v1/embeddings": {"input": ["a"]},
        "/embed_text": {"text": "a"},
    }
    for path, body in bodies.items():
        desk.post(path, {**body, "embedding_type": "binary"})
        for more in ({}, {"encoding_format": "base64"}):
            plain = desk.post(path, {**body, **more})
            asked = desk.post(path, {**body, **more, "embedding_type": "float32"})
            assert asked.body == plain.body
            assert b"scale" not in plain.body


def test_every_int8_vector_comes_with_its_scale(desk: Desk) -> None:
    """Beside it in the OpenAI form, in a list of their own elsewhere, null for a refused item."""
    body = {"embedding_type": "int8", "dimensions": 8}
    floats = desk.post("/v1/embeddings", {"input": ["a", "b"], "dimensions": 8})
    wanted = [one["embedding"] for one in content_of(floats, EmbeddingsResponse)["data"]]
    data = content_of(
        desk.post("/v1/embeddings", {"input": ["a", "b"], **body}), EmbeddingsResponse
    )
    for one, vector in zip(data["data"], wanted, strict=True):
        assert [n * one["scale"] for n in one["embedding"]] == pytest.approx(vector, abs=0.004)
    scales = [one["scale"] for one in data["data"]]
    many = content_of(desk.post("/embed_text", {"texts": ["a", "", "b"], **body}), EmbedResponse)
    assert many["scales"] == [scales[0], None, scales[1]]
    assert many["embeddings"][1] is None
    single = content_of(desk.post("/embed_text", {"text": "b", **body}), EmbedResponse)
    assert single["scale"] == scales[1]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embed_text"])
def test_bits_must_fill_their_bytes(desk: Desk, path: str) -> None:
    """Padding would make Hamming distances of bits that mean nothing."""
    body: dict[str, Any] = {**body_for(path), "embedding_type": "binary"}
    assert desk.post(path, {**body, "dimensions": 16}).status == 200
    with pytest.raises(RequestInvalid) as refusal:
        desk.post(path, {**body, "dimensions": 12})
    assert refusal.value.param == "dimensions"
    assert "multiple of 8" in refusal.value.message


def test_the_headers_say_what_the_cache_did(desk: Desk) -> None:
    """One word for each item, in order."""
    first = desk.post("/embed_text", {"texts": ["a", "b", "a"]})
    again = desk.post("/embed_text", {"texts": ["b", "c"]})
    assert header(first, b"x-cache") == b"miss,miss,join"
    assert header(again, b"x-cache") == b"hit-l1,miss"
    assert b"infer;dur=1.000" in header(first, b"server-timing")


@pytest.mark.parametrize(
    ("control", "state", "kept"),
    [
        *(("no-cache", b"bypass", True), ("No-Cache, max-age=0", b"bypass", True)),
        *(("no-store", b"bypass", False), ("no-cache,no-store", b"bypass", False)),
        *(("max-age=0", b"hit-l1", True), ("", b"hit-l1", True)),
    ],
)
def test_cache_control_is_obeyed(desk: Desk, control: str, state: bytes, kept: bool) -> None:
    """no-cache computes afresh and keeps, no-store computes afresh and keeps nothing."""
    desk.post("/embed_text", {"text": "known"})
    headers = {"cache-control": control}
    assert header(desk.post("/embed_text", {"text": "known"}, headers), b"x-cache") == state
    before = len(desk.cache.memory)
    desk.post("/embed_text", {"text": "new"}, headers)
    assert (len(desk.cache.memory) > before) is kept


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
    with pytest.raises(RequestInvalid, match="exactly one of"):
        desk.post(path, body)


class Web(Fetcher):
    """What stands at every URL, without a network."""

    def __init__(self, image: bytes) -> None:
        super().__init__(FetchPolicy(max_bytes=1000, any_public=True))
        self.image = image

    async def fetch_all(
        self, urls: Sequence[str], client: Hashable = None
    ) -> list[bytes | ItemError]:
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
def test_an_answer_about_a_url_is_not_given_again(path: str, body: Any) -> None:
    """The vectors are in the cache by content, but the URL may bring other content next time."""
    web = Web(RED)
    desk = Desk(fetcher=web)
    replay = Replay(1 << 20)
    desk.table = {name: replay.over(route) for name, route in desk.table.items()}
    headers = {"content-length": "10"}
    first, again = (desk.post(path, body, headers) for _ in range(2))
    assert set(dict(again.headers)[b"x-cache"].split(b",")) == {b"hit-l1"}
    assert again.hits == len(replay.kept) == 0
    web.image = BLUE
    other = desk.post(path, body, headers)
    desk.close()
    assert b"miss" in dict(other.headers)[b"x-cache"]
    assert other.body != first.body


def test_scores_are_those_of_the_model(desk: Desk) -> None:
    """cosine = text · image, probability = sigmoid(scale · cosine + bias), for every pair."""
    texts, images = ["a", "b", "c"], [RED, BLUE]
    body = {"texts": texts, "images": [b64(RED), uri(BLUE)]}
    content = content_of(desk.post("/score", body), ScoreResponse)
    for i, text in enumerate(texts):
        for j, image in enumerate(images):
            cosine = dot(row_of("text", text), row_of("image", image))
            logit = DEMO.logit_scale * cosine + DEMO.logit_bias
            assert content["cosine"][i][j] == pytest.approx(cosine, abs=1e-7)
            assert content["probability"][i][j] == pytest.approx(1 / (1 + math.exp(-logit)))
    assert (content["logit_scale"], content["logit_bias"]) == (DEMO.logit_scale, DEMO.logit_bias)


def test_labels_are_ranked_and_put_into_the_template(desk: Desk) -> None:
    """The captions go to the tower, the labels come back as they were sent, best first."""
    labels = ["Red", "green", "blue", "green"]
    content = content_of(
        desk.post("/classify", {"image": b64(RED), "labels": labels}), ClassifyResponse
    )
    sent = dict(desk.towers.sent)["text"]
    assert sent == [f"this is a photo of {one}." for one in ("red", "green", "blue")]
    ranked = content["labels"]
    assert sorted(one["label"] for one in ranked) == sorted(labels)
    assert [one["cosine"] for one in ranked] == sorted((o["cosine"] for o in ranked), reverse=True)
    for one in ranked:
        caption = f"this is a photo of {one['label'].lower()}."
        cosine = dot(row_of("text", caption), row_of("image", RED))
        assert one["cosine"] == pytest.approx(cosine, abs=1e-7)
        logit = DEMO.logit_scale * one["cosine"] + DEMO.logit_bias
        assert one["probability"] == pytest.approx(1 / (1 + math.exp(-logit)))


def test_a_template_is_filled_and_nothing_else_in_it_is(desk: Desk) -> None:
    """It is no format string: braces of other kinds stay."""
    template = "{label} {0} {{label}} {label!r}"
    desk.post("/classify", {"image": b64(RED), "labels": ["{0}x"], "template": template})
    assert dict(desk.towers.sent)["text"] == ["{0}x {0} {{0}x} {label!r}"]


@pytest.mark.parametrize("path", FORMS)
def test_a_body_of_the_wrong_kind_is_refused_on_every_route(desk: Desk, path: str) -> None:
    """By what is wrong with it: type, JSON or size; and as a full server says."""
    with pytest.raises(MediaTypeUnsupported):
        desk.post(path, b"{}", {"content-type": "application/xml"})
    with pytest.raises(JsonInvalid):
        desk.post(path, b"{")
    with pytest.raises(BodyTooLarge):
        desk.post(path, body_for(path), limit=4)
    desk.towers.failure = Overloaded()
    with pytest.raises(Overloaded):
        desk.post(path, body_for(path))


def test_a_model_is_found_by_its_name(desk: Desk) -> None:
    """Slashes of a hub name included; another name is not found."""
    assert content_of(desk.get(f"/v1/models/{DEMO.name}"), ModelCard)["id"] == DEMO.name
    with pytest.raises(ModelUnknown):
        desk.get("/v1/models/another")
    hub = Desk(replace(DEMO, name="google/siglip2-base"))
    assert orjson.loads(hub.get("/v1/models/google/siglip2-base").body)["id"] == (
        "google/siglip2-base"
    )
    hub.close()


def test_info_is_what_the_service_says(desk: Desk) -> None:
    """The route adds nothing and leaves nothing out."""
    assert orjson.loads(desk.get("/info").body) == orjson.loads(orjson.dumps(desk.service.info()))


def test_every_documented_route_that_embeds_is_in_the_table(desk: Desk) -> None:
    """And none beside them."""
    assert {path for method, path in desk.table if method == "POST"} == set(FORMS)
    facts = {path for method, path in desk.table if method == "GET"}
    assert facts == {"/v1/models", "/v1/models/", "/info"}
