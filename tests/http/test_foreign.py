"""Other makers' forms: the same items, vectors, limits and errors in other words."""

import base64
from typing import Any

import numpy as np
import orjson
import pytest
from pydantic import TypeAdapter

from docs.openapi import document
from litapi.errors import RequestInvalid, TooManyItems
from litapi.http.answer import Answer
from litapi.http.replay import Replay
from tests.support.desk import BLUE, DEMO, RED, Desk, b64, dot, header, row_of, uri
from tests.support.forms import body_for

MB = 1 << 20
LONG = "the last words of a text that is longer than what the model reads " * 2
VOYAGE = "/v1/multimodalembeddings"
RERANKS = ("/rerank", "/v1/rerank", "/v2/rerank")
ANSWERS = {
    path: document.FORMS[path][1]
    for path in ("/v2/embed", VOYAGE, "/embed", "/similarity", *RERANKS)
}


def said(path: str, answer: Answer) -> Any:
    """The JSON of an answer, which must have the documented form and nothing beside it."""
    content, form = orjson.loads(answer.body), ANSWERS[path]
    told = form.model_validate(content)
    assert TypeAdapter(form).dump_python(told, exclude_unset=True) == content
    return content


def ask(desk: Desk, path: str, body: dict[str, Any], **more: Any) -> Any:
    return said(path, desk.post(path, body, **more))


def openai(desk: Desk, *items: Any, **options: Any) -> list[Any]:
    """The vectors of `/v1/embeddings`."""
    answered = desk.json("/v1/embeddings", {"input": [*items], **options})
    return [one["embedding"] for one in answered["data"]]


def content(*parts: Any) -> dict[str, Any]:
    return {"content": [*parts]}


TEXT = {"type": "text", "text": "A Cat"}
IMAGE = {"type": "image_url", "image_url": {"url": uri(RED)}}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("/v2/embed", {"inputs": [content(TEXT), content(IMAGE)]}),
    (VOYAGE, {"inputs": [content(TEXT), content({"image_base64": uri(RED)})]}),
    (VOYAGE, {"inputs": [content("A Cat"), content({"image": b64(RED)})]}),
    ("/embed", {"inputs": ["A Cat", uri(RED)]}),
    ("/embed", {"inputs": [{"text": "A Cat", "image": None}, {"image": b64(RED)}]}),
]


def rows_of(path: str, answered: Any) -> list[Any]:
    """The vectors in the answer to one of the cases."""
    if path == "/v2/embed":
        return list(answered["embeddings"]["float"])
    return answered if path == "/embed" else [one["embedding"] for one in answered["data"]]


@pytest.mark.parametrize(("path", "body"), CASES)
def test_the_vectors_are_those_of_the_openai_form(desk: Desk, path: str, body: Any) -> None:
    """Number by number, and from the same place in the cache; also where they are cut."""
    size = "dimensions" if path == "/embed" else "output_dimension"
    for more, options in (({}, {}), ({size: 8.0}, {"dimensions": 8})):
        expected = openai(desk, "a cat", uri(RED), **options)
        answer = desk.post(path, {**body, **more})
        assert rows_of(path, said(path, answer)) == expected
        assert header(answer, b"x-cache") == b"hit-l1,hit-l1"


def test_every_type_of_cohere_is_made_of_the_same_vector(desk: Desk) -> None:
    """uint8 and binary are shifted by 128, so that each fits the type that its client expects."""
    types = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    body = {"texts": ["a", "b"], "embedding_types": types}
    answered = ask(desk, "/v2/embed", body)
    rows = answered["embeddings"]
    assert list(rows) == types
    assert answered["texts"] == ["a", "b"]
    assert rows["float"] == openai(desk, "a", "b")
    assert rows["base64"] == openai(desk, "a", "b", encoding_format="base64")
    assert rows["int8"] == openai(desk, "a", "b", embedding_type="int8")
    assert rows["ubinary"] == openai(desk, "a", "b", embedding_type="binary")
    assert np.array_equal(np.array(rows["uint8"]) - 128, rows["int8"])
    assert np.array_equal(np.array(rows["binary"]) + 128, rows["ubinary"])
    assert answered["meta"]["billed_units"] == {"input_tokens": 2, "images": 0}


def test_the_numbers_of_voyage_come_in_base64_too(desk: Desk) -> None:
    """As bytes of the type that was asked for."""
    body = {"inputs": [content("a")], "output_encoding": "base64"}
    for dtype, kind in (("float", "<f4"), ("int8", "i1"), ("uint8", "u1"), ("binary", "i1")):
        plain = ask(desk, VOYAGE, {"inputs": [content("a")], "output_dtype": dtype})
        (coded,) = ask(desk, VOYAGE, {**body, "output_dtype": dtype})["data"]
        numbers = np.frombuffer(base64.b64decode(coded["embedding"]), kind)
        assert np.array_equal(numbers, np.array(plain["data"][0]["embedding"], kind))


def test_what_was_embedded_is_counted_by_kind(desk: Desk) -> None:
    """Tokens of texts, and the pixels that the model saw of images."""
    usage = ask(desk, *CASES[1])["usage"]
    patches = len(RED)  # of the stand-in
    assert usage["text_tokens"] == len("a cat")
    assert usage["image_pixels"] == patches * DEMO.patch_size**2
    assert usage["total_tokens"] == len("a cat") + patches
    images = ask(desk, "/v2/embed", {"images": [uri(RED), b64(BLUE)]})
    assert images["meta"]["billed_units"] == {"input_tokens": 0, "images": 2}
    assert images["embeddings"]["float"] == [row_of("image", RED), row_of("image", BLUE)]


def test_what_jina_and_voyage_call_our_fields_is_understood(desk: Desk) -> None:
    """On /v1/embeddings, and beside the bytes of an image."""
    for theirs, ours in (
        ({"output_dimension": 8, "output_dtype": None, "task": "x"}, {"dimensions": 8}),
        ({"embedding_type": "float"}, {}),
        ({"embedding_type": "base64"}, {"encoding_format": "base64"}),
        ({"embedding_type": "ubinary"}, {"embedding_type": "binary"}),
    ):
        assert openai(desk, "a", **theirs) == openai(desk, "a", **ours)
    raw = {"content-type": "image/png"}
    assert desk.json("/embed_image", RED, raw, query=b"output_dimension=8")["dimension"] == 8


@pytest.mark.parametrize("path", ["/v2/embed", VOYAGE])
def test_as_many_images_as_may_be_are_read_in_any_form(desk: Desk, path: str) -> None:
    """Each wrapped in an input of its own; one more is refused with the count."""
    images = [b"a picture %d " % i * 50 for i in range(2048)]
    inputs = [content(IMAGE | {"image_url": {"url": uri(image)}}) for image in images]
    answered = ask(desk, path, {"inputs": inputs}, limit=64 * MB)
    assert rows_of(path, answered)[2047] == row_of("image", images[2047])
    body = {"inputs": [*inputs, content("a")]}
    refusal = desk.denial(TooManyItems, path, body, limit=64 * MB)
    assert "has 2049 items; this server accepts 2048" in refusal.message


def test_a_long_image_stands_as_deep_as_a_form_goes(desk: Desk) -> None:
    """Its bytes are read piece by piece; a long text beside it is put back as it was."""
    data = np.random.default_rng(1).bytes(300_000)
    text = "a long text " * 60
    parts = [content(IMAGE | {"image_url": {"url": uri(data)}}), content({"text": text})]
    answered = ask(desk, "/v2/embed", {"inputs": parts}, limit=MB)
    assert answered["embeddings"]["float"] == [row_of("image", data), row_of("text", text)]


@pytest.mark.parametrize("path", ANSWERS)
@pytest.mark.parametrize("how", [{"truncate": "NONE"}, {"truncate": False}, {"truncation": False}])
def test_a_text_may_be_refused_rather_than_cut(desk: Desk, path: str, how: dict[str, Any]) -> None:
    """By its place, with every other one; a text that fits is answered."""
    assert desk.post(path, {**body_for(path), **how}).status == 200
    bodies: dict[str, dict[str, Any]] = {
        "/v2/embed": {"texts": ["a", LONG]},
        "/embed": {"inputs": ["a", LONG]},
        VOYAGE: {"inputs": [content("a"), content(LONG)]},
        "/similarity": {"inputs": {"source_sentence": "a", "sentences": ["a", LONG]}},
    }
    body = bodies.get(path, {"query": "a", "documents": ["a", LONG]})
    (item,) = desk.refusal(path, {**body, **how}).items
    assert item["code"] == "text_too_long"
    assert item["param"].endswith("[1]")
    assert "not to cut it" in item["message"]


def test_what_is_done_to_long_texts_may_stand_among_parameters(desk: Desk) -> None:
    """As the client of text-embeddings-inference writes it, empty or not."""
    inputs = {"source_sentence": "a", "sentences": [LONG]}
    plain = ask(desk, "/similarity", {"inputs": inputs, "parameters": {}})
    start = {"truncate": True, "truncation_direction": "Left"}
    assert ask(desk, "/similarity", {"inputs": inputs, "parameters": start}) != plain
    desk.refusal("/similarity", {"inputs": inputs, "parameters": {"truncate": False}})


@pytest.mark.parametrize("how", [{"truncate": "START"}, {"truncation_direction": "Left"}])
def test_a_text_may_be_cut_at_its_start(desk: Desk, how: dict[str, Any]) -> None:
    """That is another vector, under another name in the cache."""
    rows = [ask(desk, "/embed", {"inputs": LONG, **more}) for more in ({}, how, {}, how)]
    assert rows[0] == rows[2] == [row_of("text", LONG)]
    assert rows[1] == rows[3] == [row_of("text", LONG[-64:])]
    assert [job.ending for _, job in desk.towers.jobs] == [False, True]


@pytest.mark.parametrize("path", ["/v2/embed", VOYAGE])
def test_an_input_of_several_parts_has_no_vector(desk: Desk, path: str) -> None:
    """422 that says why, for each such input."""
    several = content(TEXT, {"image": b64(RED)})
    refused = desk.refusal(path, {"inputs": [several, content("a"), several, content("")]})
    assert refused.error.status == 422
    assert [(one["param"], one["code"]) for one in refused.items] == [
        ("inputs[0]", "item_of_several_parts"),
        ("inputs[2]", "item_of_several_parts"),
        ("inputs[3]", "text_empty"),
    ]


BITS = {"texts": ["a"], "embedding_types": ["binary"]}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v2/embed", {"texts": ["a"], "output_dimension": 4096}, "output_dimension"),
        ("/v2/embed", {"texts": ["a"], "max_tokens": 16}, "max_tokens"),
        ("/v2/embed", {"texts": ["a"], "images": ["a"]}, None),
        ("/v2/embed", {}, None),
        ("/v2/embed", BITS | {"output_dimension": 12}, "output_dimension"),
        ("/embed", {"inputs": "a", "dimensions": 4096}, "dimensions"),
        ("/embed", {"inputs": "a", "prompt_name": "query"}, "prompt_name"),
        ("/rerank", {"query": "a", "documents": ["a"], "rank_fields": ["b"]}, "rank_fields"),
        ("/rerank", {"query": "a", "documents": ["a"], "top_n": 0}, "top_n"),
        ("/rerank", {"query": "a", "documents": ["a"], "texts": ["a"]}, "documents"),
        ("/rerank", {"query": "a"}, "documents"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, "inputs.sentences"),
    ],
)
def test_what_is_not_served_is_refused_by_name(
    desk: Desk, path: str, body: dict[str, Any], param: str | None
) -> None:
    """In the name that the form has for it."""
    assert desk.denial(RequestInvalid, path, body).param == param


def test_similarity_is_the_cosine(desk: Desk) -> None:
    """Of any two items, in the order of the sentences."""
    body = {"inputs": {"source_sentence": "a", "sentences": ["b", "a", {"image": b64(RED)}]}}
    a, b, red = row_of("text", "a"), row_of("text", "b"), row_of("image", RED)
    assert ask(desk, "/similarity", body) == pytest.approx([dot(a, b), 1, dot(a, red)], abs=1e-6)


@pytest.mark.parametrize("path", RERANKS)
def test_images_are_ranked_for_a_text_by_the_probability_of_score(desk: Desk, path: str) -> None:
    """The best first, each with its index; a pair is a pair, whichever of the two was the query."""
    texts = ["one", "two", "three"]
    given = desk.json("/score", {"texts": texts, "images": [b64(RED)]})
    for one in ask(desk, path, {"query": {"image": b64(RED)}, "documents": texts})["results"]:
        assert one["relevance_score"] == pytest.approx(given["probability"][one["index"]][0])
    images = [b64(b"picture %d" % i) for i in range(40)]
    (probability,) = desk.json("/score", {"texts": ["a"], "images": images})["probability"]
    answered = ask(desk, path, {"query": "a", "documents": [{"image": one} for one in images]})
    found = {one["index"]: one["relevance_score"] for one in answered["results"]}
    assert [found[i] for i in range(40)] == pytest.approx(probability, rel=1e-12)
    scores = [one["relevance_score"] for one in answered["results"]]
    assert scores == sorted(scores, reverse=True)
    assert answered["usage"]["total_tokens"] == 1 + sum(len(b"picture %d" % i) for i in range(40))


def test_two_of_a_kind_are_compared_by_their_cosine(desk: Desk) -> None:
    """Scaled to 0…1, and a document of the other kind among them still by its probability."""
    body = {"query": uri(RED), "documents": [uri(BLUE), "a", uri(RED)]}
    found = {one["index"]: one["relevance_score"] for one in ask(desk, "/rerank", body)["results"]}
    red, blue = row_of("image", RED), row_of("image", BLUE)
    assert found[0] == pytest.approx((1 + dot(red, blue)) / 2, abs=1e-6)
    assert found[2] == pytest.approx(1, abs=1e-6)
    scored = desk.json("/score", {"texts": ["a"], "images": [b64(RED)]})
    assert found[1] == pytest.approx(scored["probability"][0][0])
    assert "not trained" in desk.service.info()["model"]["likeness_note"]


def test_only_the_best_come_back_and_texts_with_them(desk: Desk) -> None:
    """Where they are asked for; an image is never sent back."""
    documents = ["first", {"text": "second"}, uri(RED)]
    body = {"query": "first", "documents": documents, "return_documents": True}
    whole = ask(desk, "/rerank", body)["results"]
    told = {one["index"]: one.get("document") for one in whole}
    assert told == {0: {"text": "first"}, 1: {"text": "second"}, 2: None}
    assert ask(desk, "/rerank", {**body, "top_n": 2.0})["results"] == whole[:2]
    assert "document" not in ask(desk, "/rerank", {**body, "return_documents": None})["results"][0]


@pytest.mark.parametrize("path", RERANKS)
def test_voyage_and_tei_are_ranked_alike_in_their_own_words(desk: Desk, path: str) -> None:
    """The same order and scores; texts come back as strings, and images never."""
    items = [uri(RED), "one", {"text": "two"}, "three", {"image": b64(BLUE)}]
    results = ask(desk, path, {"query": "a", "documents": items})["results"]
    ranks = [(one["index"], one["relevance_score"]) for one in results]
    voyage = {"query": "a", "documents": items, "top_k": None, "truncation": True}
    answer = ask(desk, path, {**voyage, "return_documents": True})
    assert [(one["index"], one["relevance_score"]) for one in answer["data"]] == ranks
    assert answer["object"] == "list"
    assert {one["index"]: one.get("document") for one in answer["data"]} == dict(
        enumerate((None, "one", "two", "three", None))
    )
    best = ask(desk, path, {**voyage, "top_k": 2})
    assert [one["index"] for one in best["data"]] == [index for index, _ in ranks[:2]]
    tei = {"query": "a", "texts": items, "return_text": True}
    found = ask(desk, path, tei)
    assert [(one["index"], one["score"]) for one in found] == ranks
    assert {one.get("text") for one in found} == {None, "one", "two", "three"}
    raw = ask(desk, path, {**tei, "raw_scores": True})
    assert [one["index"] for one in raw] == [index for index, _ in ranks]
    (cosine,) = [one["score"] for one in raw if one["index"] == 1]
    assert cosine == pytest.approx(dot(row_of("text", "a"), row_of("text", "one")), abs=1e-6)


def test_an_answer_in_any_form_is_kept_and_replayed(desk: Desk) -> None:
    """Like one of /v1/embeddings, once all of its vectors come from memory."""
    replay = Replay(1 << 20)
    for path in ANSWERS:
        desk.table["POST", path] = replay.over(desk.table["POST", path])
        body = orjson.dumps(body_for(path))
        headers = {"content-length": str(len(body)), "content-type": "application/json"}
        answers = [desk.post(path, body, headers) for _ in range(3)]
        assert len({answer.body for answer in answers[1:]}) == 1
    assert len(replay.kept) == len(ANSWERS)
