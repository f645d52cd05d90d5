"""Scores, labels in one template or several, thresholds, and probabilities by a calibration."""

import math
from typing import Any

import numpy as np
import orjson
import pytest

from docs.openapi.answers import ClassifyResponse, ScoreResponse
from litapi.errors import BodyTooLarge, RequestInvalid, TooManyItems
from litapi.http.answer import Answer
from tests.support.calibration import calibration
from tests.support.desk import BLUE, DEMO, RED, Desk, Desks, b64, header, row_of, uri

TEMPLATES = ["a photo of {label}", "{label}.", "this is {label}, not {label}s"]
LABELS = ["Red", "green", "blue"]
BODY: dict[str, Any] = {"image": b64(RED), "labels": LABELS, "templates": TEMPLATES}


@pytest.fixture
def calibrated(desks: Desks) -> Desk:
    """The demo checkpoint with probabilities that were fitted."""
    return desks(calibration=calibration())


def classes_of(answer: Answer) -> dict[str, dict[str, Any]]:
    """The labels of an answer by name, of the documented form."""
    content = orjson.loads(answer.body)
    assert ClassifyResponse.model_validate(content).model_dump(exclude_unset=True) == content
    return {one["label"]: one for one in content["labels"]}


def by_hand(label: str, templates: list[str]) -> float:
    """The cosine of the image with the mean of its captions' vectors, of length 1 again."""
    captions = [template.replace("{label}", label.lower()) for template in templates]
    mean = np.mean([row_of("text", caption) for caption in captions], axis=0)
    return float(mean / np.linalg.norm(mean) @ row_of("image", RED))


def sigmoid(cosine: float, scale: float = DEMO.logit_scale, bias: float = DEMO.logit_bias) -> float:
    return float(1 / (1 + np.exp(-(scale * cosine + bias))))


def test_scores_are_those_of_the_model(desk: Desk) -> None:
    """cosine = text · image, probability = sigmoid(scale · cosine + bias), for every pair."""
    texts = np.array([row_of("text", text) for text in ("a", "b", "c")])
    images = np.array([row_of("image", image) for image in (RED, BLUE)])
    content = desk.json("/score", {"texts": ["a", "b", "c"], "images": [b64(RED), uri(BLUE)]})
    assert np.allclose(content["cosine"], texts @ images.T, rtol=0, atol=1e-7)
    for cosines, row in zip(content["cosine"], content["probability"], strict=True):
        assert row == pytest.approx([sigmoid(one) for one in cosines])
    assert (content["logit_scale"], content["logit_bias"]) == (DEMO.logit_scale, DEMO.logit_bias)


@pytest.mark.parametrize("templates", [None, TEMPLATES])
def test_a_label_in_several_templates_is_their_mean(desk: Desk, templates: Any) -> None:
    """Renormalised, as computed by hand; the labels come back as they were sent, best first."""
    labels = [*LABELS, "green"]
    answer = desk.post("/classify", {**BODY, "labels": labels, "templates": templates})
    ranked = orjson.loads(answer.body)["labels"]
    assert sorted(one["label"] for one in ranked) == sorted(labels)
    cosines = [one["cosine"] for one in ranked]
    assert cosines == sorted(cosines, reverse=True)
    for label, one in classes_of(answer).items():
        expected = by_hand(label, templates or ["this is a photo of {label}."])
        assert one["cosine"] == pytest.approx(expected, abs=1e-6)
        assert one["probability"] == pytest.approx(sigmoid(expected), abs=1e-6)


def test_a_list_of_one_template_is_that_template(desk: Desk) -> None:
    """To the last digit: there is no mean of one."""
    one = desk.post("/classify", {"image": b64(RED), "labels": LABELS, "template": TEMPLATES[0]})
    listed = desk.post("/classify", {**BODY, "templates": TEMPLATES[:1]})
    assert one.body == listed.body


def test_label_vectors_come_from_the_cache(desk: Desk) -> None:
    """Each caption is a text like any: asked again, for another image, no text is computed."""
    desk.post("/classify", BODY)
    assert len(dict(desk.towers.sent)["text"]) == len(LABELS) * len(TEMPLATES)
    desk.towers.take()
    again = desk.post("/classify", {**BODY, "image": b64(BLUE)})
    assert [kind for kind, _ in desk.towers.take()] == ["image"]
    assert header(again, b"x-cache") == b",".join([b"miss", *[b"hit-l1"] * 9])
    answer = desk.post("/embed_text", {"text": "a photo of green"})
    assert header(answer, b"x-cache") == b"hit-l1"


def test_labels_times_templates_count_as_items(desks: Desks) -> None:
    """With the image; one more is refused in a sentence that says how it was counted."""
    desk = desks(max_items=10)
    assert desk.post("/classify", BODY).status == 200
    one_more = desk.denial(TooManyItems, "/classify", {**BODY, "labels": [*LABELS, "pink"]})
    assert "4 labels × 3 templates and an image, 13 items" in one_more.message
    many = desk.denial(TooManyItems, "/classify", {**BODY, "templates": TEMPLATES * 20})
    assert "has 60 items" in many.message


def test_the_captions_of_all_templates_are_bounded_together(desk: Desk) -> None:
    """Each template alone would be within the bound."""
    body = {"image": b64(RED), "labels": ["b" * 30] * 50}
    template = "{label}" * 1000
    assert desk.post("/classify", {**body, "templates": [template]}).status == 200
    both = {**body, "templates": [template, template]}
    refusal = desk.denial(BodyTooLarge, "/classify", both)
    assert "3000000 characters together; this server accepts 2097152" in refusal.message


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"templates": ["{label}", "a photo"]}, "templates[1]"),
        ({"template": "{label}"}, "templates"), ({"templates": []}, "templates"),
        ({"template": "a photo", "templates": None}, "template"),
        ({"templates": ["{label}", 1]}, "templates[1]"), ({"templates": "{label}"}, "templates"),
        ({"threshold": 1.5}, "threshold"), ({"threshold": -0.1}, "threshold"),
        ({"threshold": "0.5"}, "threshold"), ({"threshold": True}, "threshold"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_by_name(desk: Desk, change: Any, param: str) -> None:
    """Before anything is computed."""
    assert desk.denial(RequestInvalid, "/classify", {**BODY, **change}).param == param


def test_a_refused_caption_is_named_by_its_label(desk: Desk) -> None:
    """In whichever template it is; a template that is null stands beside several."""
    body = {**BODY, "labels": ["a", ""], "templates": ["x {label}", "{label}"], "template": None}
    assert [one["param"] for one in desk.refusal("/classify", body).items] == ["labels[1]"]


def test_a_label_holds_from_the_threshold_on(desk: Desk) -> None:
    """The threshold that was asked for, reached exactly or not; without one a half."""
    middle = classes_of(desk.post("/classify", BODY))["green"]["probability"]
    for threshold in (0, middle, math.nextafter(middle, 1), 1.0, None):
        answer = desk.post("/classify", {**BODY, "threshold": threshold})
        reached = 0.5 if threshold is None else threshold
        assert orjson.loads(answer.body)["threshold"] == reached
        for one in classes_of(answer).values():
            assert one["holds"] is (one["probability"] >= reached)


def test_a_calibration_gives_the_probabilities_of_labels(calibrated: Desk, desk: Desk) -> None:
    """With its own threshold or the request's, and the model's own probability beside."""
    plain = classes_of(desk.post("/classify", BODY))
    answer = calibrated.post("/classify", BODY)
    assert orjson.loads(answer.body)["threshold"] == 0.2
    found = classes_of(answer)
    assert list(found) == list(plain)
    for label, one in found.items():
        assert one["cosine"] == plain[label]["cosine"]
        assert one["model_probability"] == plain[label]["probability"]
        assert one["probability"] == pytest.approx(sigmoid(one["cosine"], 5.0, -1.0), abs=1e-12)
        assert one["holds"] is (one["probability"] >= 0.2)
    found = classes_of(calibrated.post("/classify", {**BODY, "threshold": 0.4}))
    assert all(one["holds"] is (one["probability"] >= 0.4) for one in found.values())


def test_a_calibration_gives_the_probabilities_of_scores(calibrated: Desk, desk: Desk) -> None:
    """Of every pair; what `logit_scale` and `logit_bias` say is the model's own."""
    body = {"texts": ["a", "b", "c"], "images": [b64(RED), b64(BLUE)]}
    plain, found = desk.json("/score", body), calibrated.json("/score", body)
    assert ScoreResponse.model_validate(found).model_dump(exclude_unset=True) == found
    for row, cosines in zip(found["probability"], found["cosine"], strict=True):
        assert row == pytest.approx([sigmoid(one, 5.0, -1.0) for one in cosines], abs=1e-12)
    probability = found.pop("model_probability")
    assert {**found, "probability": probability} == plain


def test_a_calibration_gives_the_scores_of_a_ranking(calibrated: Desk, desk: Desk) -> None:
    """Of pairs of text and image; two of a kind are compared as ever."""
    body = {"query": "a", "documents": [{"image": b64(RED)}, "b"]}
    found, own = (
        {one["index"]: one for one in running.json("/rerank", body)["results"]}
        for running in (calibrated, desk)
    )
    scores = calibrated.json("/score", {"texts": ["a"], "images": [b64(RED)]})
    assert found[0]["relevance_score"] == pytest.approx(scores["probability"][0][0])
    assert found[0]["model_probability"] == pytest.approx(own[0]["relevance_score"])
    assert found[1] == own[1]


def test_info_tells_of_the_calibration(calibrated: Desk, desk: Desk) -> None:
    """What it fitted and how good it is on pairs that were held out; null where there is none."""
    assert orjson.loads(desk.get("/info").body)["model"]["calibration"] is None
    told = orjson.loads(calibrated.get("/info").body)["model"]["calibration"]
    assert (told["scale"], told["bias"], told["threshold"]) == (5.0, -1.0, 0.2)
    assert told["heldout"]["fitted"]["f1"] == 0.9
