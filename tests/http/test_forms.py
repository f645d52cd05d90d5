"""Request bodies: what is accepted, and that every refusal names the place in the body."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from litapi.errors import RequestInvalid
from litapi.http.forms.foreign import (
    CohereRequest,
    RerankRequest,
    SimilarityRequest,
    TeiRequest,
    VoyageRequest,
)
from litapi.http.forms.form import Form, Options
from litapi.http.forms.native import (
    ClassifyRequest,
    EmbeddingsRequest,
    EmbedImageRequest,
    EmbedTextRequest,
    ScoreRequest,
)
from litapi.http.forms.validation import validate
from tests.support.forms import FORMS

REQUESTS: list[type[Form]] = [*dict.fromkeys(FORMS.values()), Options]
FIELDS = sorted({name for form in REQUESTS for name in form.model_fields} | {"type", "image_url"})

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
bodies = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), anything, max_size=5)


def refusal(form: type[BaseModel], body: Any) -> RequestInvalid:
    """The refusal of a wrong body."""
    with pytest.raises(RequestInvalid) as caught:
        validate(form, body)
    return caught.value


@pytest.mark.parametrize("form", REQUESTS)
@given(body=anything | bodies)
def test_any_json_is_accepted_or_refused_as_an_invalid_request(form: type[Form], body: Any) -> None:
    """No body that JSON can hold ends in an internal error."""
    try:
        outcome: Any = validate(form, body)
    except RequestInvalid as error:
        outcome = error
    assert isinstance(outcome, form) or (outcome.message and outcome.param)


@pytest.mark.parametrize("form", REQUESTS)
@pytest.mark.parametrize("body", [None, [], "text", 3, True])
def test_a_body_that_is_not_an_object_is_refused_as_a_whole(form: type[Form], body: Any) -> None:
    """There is no field to name, so the body itself is named."""
    error = refusal(form, body)
    assert error.message == "body: Input should be an object"
    assert error.param == "body"


@pytest.mark.parametrize("form", REQUESTS)
def test_a_misspelt_option_is_refused_by_its_name(form: type[Form]) -> None:
    """A typo never turns into a default."""
    message = refusal(form, {"dimension": 4}).message
    assert "dimension: there is no such field here, only " in message
    assert all(name in message for name in form.model_fields)


@given(st.text(min_size=12, max_size=40))
def test_a_refusal_does_not_echo_what_was_sent(secret: str) -> None:
    """A key that was pasted into the wrong field does not come back in an error or a log."""
    for body in ({"input": "a", "dimensions": secret}, {"input": "a", "encoding_format": secret}):
        assert secret not in refusal(EmbeddingsRequest, body).message


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "input"), ({"input": 3}, "input"), ({"input": None}, "input"),
        ({"input": []}, "input"), ({"input": ["a", 3]}, "input[1]"),
        ({"input": ["a", None]}, "input[1]"),
        ({"input": ["a", ["b"]]}, "input[1]"), ({"input": ["a", {}]}, "input[1].text"),
        ({"input": ["a", "b", "c", {"text": 1}]}, "input[3].text"),
        ({"input": [{"text": "a", "kind": "b"}]}, "input[0].kind"),
        ({"input": [{"image": 1}]}, "input[0].image"),
        ({"input": [{"image_url": {}}]}, "input[0].image_url.url"),
        ({"input": [{"image_url": {"url": "a", "detail": "most"}}]}, "input[0].image_url.detail"),
        ({"input": [{"type": "image", "text": "a"}]}, "input[0].type"),
        ({"input": [{"text": "a", "image": "b"}]}, "input[0].image"),
        ({"input": "a", "dimensions": 0}, "dimensions"), ({"input": "a", "text": "b"}, "text"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "embedding_type": "uint8"}, "embedding_type"),
        ({"input": "a", "model": 3}, "model"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_place_in_the_body(body: dict[str, Any], place: str) -> None:
    """The place is written the way one would reach for it in code."""
    assert place in places(refusal(EmbeddingsRequest, body))


WRONG_SENTENCE = {"source_sentence": {"text": 1}, "sentences": ["a"]}


@pytest.mark.parametrize(
    ("form", "body", "place"),
    [
        (EmbedTextRequest, {"texts": ["a", 1]}, "texts[1]"),
        (EmbedTextRequest, {"texts": []}, "texts"), (EmbedTextRequest, {"texts": "a"}, "texts"),
        (EmbedTextRequest, {"text": ["a"]}, "text"),
        (EmbedImageRequest, {"urls": [None]}, "urls[0]"),
        (EmbedImageRequest, {"image": {"url": "a"}}, "image"),
        (ScoreRequest, {"texts": ["a"]}, "images"),
        (ScoreRequest, {"texts": [], "images": ["b"]}, "texts"),
        (ClassifyRequest, {"image": "a", "labels": ["b", 2]}, "labels[1]"),
        (ClassifyRequest, {"image": "a", "labels": ["b"], "template": 1}, "template"),
        (ClassifyRequest, {"image": "a", "labels": ["b"], "max_num_patches": 4097}, "max_num_"),
        (VoyageRequest, {"inputs": [{"content": ["a"]}, {"content": [3]}]}, "inputs[1].content[0]"),
        (VoyageRequest, {"inputs": [{"content": [{"text": 1}]}]}, "inputs[0].content[0].text"),
        (TeiRequest, {"inputs": ["a", {"image": 2}]}, "inputs[1].image"),
        (SimilarityRequest, {"inputs": {"sentences": ["a"]}}, "inputs.source_sentence"),
        (SimilarityRequest, {"inputs": WRONG_SENTENCE}, "inputs.source_sentence.text"),
        (RerankRequest, {"query": 1, "documents": ["a"]}, "query"),
        (EmbeddingsRequest, {"input": [{"sha256": "0", "more": 1}]}, "input[0].more"),
        (ScoreRequest, {"texts": ["a"], "images": [{"sha512": "0"}]}, "images[0].sha256"),
        (ScoreRequest, {"texts": ["a"], "images": [{"sha256": None}]}, "images[0].sha256"),
        (ClassifyRequest, {"image": {"sha256": ["0"]}, "labels": ["a"]}, "image.sha256"),
        (RerankRequest, {"query": "a", "documents": ["a", {"sha256": 1}]}, "documents[1].sha256"),
        (CohereRequest, {"texts": ["a"], "embedding_types": ["float", "int4"]}, "embedding_types["),
        (CohereRequest, {"texts": ["a"], "truncate": "MIDDLE"}, "truncate: "),
        (CohereRequest, {"texts": ["a"], "truncate": 0.0}, "truncate: "),
    ],
)  # fmt: skip
def test_every_route_names_places_alike(form: type[Form], body: Any, place: str) -> None:
    """One way of naming serves all forms."""
    assert refusal(form, body).message.startswith(place)


def places(error: RequestInvalid) -> list[str]:
    """The places that a refusal names."""
    return [sentence.partition(": ")[0] for sentence in error.message.split("; ")]


def test_several_wrong_fields_are_named_together() -> None:
    """One answer tells all there is to mend."""
    error = refusal(EmbeddingsRequest, {"input": ["a", 1, 2], "dimensions": 0, "x": 1})
    assert sorted(places(error)) == ["dimensions", "input[1]", "input[2]", "x"]
    assert error.param == places(error)[0]  # OpenAI clients show it beside the message


@pytest.mark.parametrize(("count", "named"), [(8, 8), (1000, 9)])
def test_a_flood_of_faults_is_cut_short_after_eight(count: int, named: int) -> None:
    """And nothing is said to be left out when nothing is."""
    error = refusal(EmbedTextRequest, {"texts": [0] * count})
    assert len(places(error)) == named
    assert error.message.endswith("; …") == (count > 8)


@pytest.mark.parametrize("value", ["4", 4.5, True, [4], {}, b"a"])
def test_a_number_must_be_a_number_and_a_text_a_text(value: object) -> None:
    """Text that looks like a number is a slip, and a number is not embedded as its digits."""
    assert refusal(Options, {"dimensions": value}).param == "dimensions"
    if not isinstance(value, str):
        assert refusal(EmbedTextRequest, {"text": value}).param == "text"


@given(st.lists(st.text(max_size=20), min_size=1, max_size=8))
def test_texts_arrive_as_they_were_sent(texts: list[str]) -> None:
    """Validation changes no character."""
    assert validate(EmbeddingsRequest, {"input": texts}).input == texts
    assert validate(EmbedTextRequest, {"texts": texts}).texts == texts


@pytest.mark.parametrize("tokens", [[1, 2], [[1, 2], [3]], [[]]])
def test_token_ids_are_refused_with_the_way_out(tokens: list[object]) -> None:
    """Clients of OpenAI's own models may send them; here they would be another model's."""
    error = refusal(EmbeddingsRequest, {"input": tokens})
    assert error.param == "input"
    assert error.message.startswith("input: token ids cannot be embedded")
    assert "check_embedding_ctx_length=False" in error.message


def test_every_form_refuses_unknown_fields_and_loose_types() -> None:
    """A new form cannot forget it."""
    assert [f for f in REQUESTS if f.model_config.get("extra") != "forbid"] == []
    assert [f for f in REQUESTS if not f.model_config.get("strict")] == []
