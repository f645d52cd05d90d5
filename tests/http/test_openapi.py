"""The OpenAPI document and its pages: complete, true to the forms, and served from here alone."""

import base64
import re
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.openapi.models import OpenAPI
from starlette.testclient import TestClient

from docs.examples import answered, written
from docs.openapi.answers import ErrorResponse
from docs.openapi.document import REFUSALS
from litapi.errors import RequestInvalid, public_errors
from litapi.http.access import OPEN_PATHS
from litapi.http.forms.form import OPTION_FIELDS
from litapi.http.forms.native import ScoreRequest
from litapi.http.forms.validation import INERT, NAMES, validate
from litapi.http.openapi import describe
from tests.support.forms import FORMS

GETS = ("/v1/models", "/v1/models/{model}", "/info", "/metrics", "/livez", "/readyz")
PAGES = ("/docs", "/redoc")
Document = dict[str, Any]


@pytest.fixture(scope="module")
def document() -> Document:
    return describe().openapi()


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every object of the document."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from nodes(inner)


def operations(document: Document) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and description of each route."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def body_of(document: Document, path: str) -> dict[str, Any]:
    """What a route takes, by content type."""
    content: dict[str, Any] = document["paths"][path]["post"]["requestBody"]["content"]
    return content


def test_the_document_is_openapi_31(document: Document) -> None:
    """What the standard requires: keys and their kinds, and references that lead somewhere."""
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    assert OpenAPI.model_validate(document).components is not None
    for path, method, operation in operations(document):
        assert method in ("get", "post"), path
        assert operation["responses"], path
        assert all(re.fullmatch(r"[1-5](\d\d|XX)|default", one) for one in operation["responses"])
        parameters = operation.get("parameters", [])
        named = {one["name"] for one in parameters if one["in"] == "path" and one["required"]}
        assert named == set(re.findall(r"{(\w+)}", path))
    for reference in (node["$ref"] for node in nodes(document) if "$ref" in node):
        target: Any = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]
        assert isinstance(target, dict)


def test_every_route_of_the_interface_and_no_other_is_described(document: Document) -> None:
    """By a name that fits generated code and a sentence of its own, not the code's docstring."""
    assert set(document["paths"]) == {*FORMS, *GETS}
    described = [operation for _, _, operation in operations(document)]
    names = [operation["operationId"] for operation in described]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() for name in names)
    assert all(operation["summary"] for operation in described)
    assert not [one for one in described if "FastAPI" in one.get("description", "")]


def test_a_key_may_be_given_everywhere_but_to_health(document: Document) -> None:
    """Either header, or none where the server asks for none; the page has a field for them."""
    schemes = document["components"]["securitySchemes"]
    assert {one.get("scheme") or one["name"] for one in schemes.values()} == {"bearer", "X-API-Key"}
    for path, _, operation in operations(document):
        asked = operation.get("security", [])
        given = {name for one in asked for name in one}
        assert given == (set() if path in OPEN_PATHS else set(schemes)), path
        assert ({} in asked) == (path not in OPEN_PATHS), path


@pytest.mark.parametrize("path", FORMS)
def test_every_shown_request_has_its_answer_beside_it(document: Document, path: str) -> None:
    """Under the same name, so that a reader finds one by the other."""
    asked = body_of(document, path)["application/json"]["examples"]
    answered = document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]
    assert asked.keys() == answered["examples"].keys()
    for example in asked.values():
        assert validate(FORMS[path], example["value"])


@pytest.mark.parametrize("path", FORMS)
def test_every_field_of_a_form_is_described(document: Document, path: str) -> None:
    """The schema is the form, whole: all fields, the required ones, those that do nothing."""
    schema = body_of(document, path)["application/json"]["schema"]
    form = FORMS[path].model_fields
    named = {name for name, ours in NAMES.items() if ours in form}
    required = {name for name, field in form.items() if field.is_required()}
    assert set(schema["properties"]) == set(form) | set(INERT) | named
    assert set(schema.get("required", [])) == required
    assert schema["additionalProperties"] is False
    assert all(one.get("description") for one in schema["properties"].values())


def test_an_image_may_be_uploaded_in_three_ways(document: Document) -> None:
    """JSON, a form with files, or the bytes; beside those the options are in fields or query.

    The page fills in defaults, and an option in the query of a JSON body is refused: none has one.
    """
    operation = document["paths"]["/embed_image"]["post"]
    content = body_of(document, "/embed_image")
    assert {"application/json", "multipart/form-data", "image/*"} <= content.keys()
    assert content["image/*"]["schema"]["format"] == "binary"
    assert content["multipart/form-data"]["schema"]["properties"].keys() >= OPTION_FIELDS
    query = [one for one in operation["parameters"] if one["in"] == "query"]
    assert {one["name"] for one in query} >= OPTION_FIELDS
    assert [one["name"] for one in query if "default" in one["schema"]] == []


def about(value: Any) -> Any:
    """Equal, but for the last digits of numbers: another processor rounds another way."""
    if isinstance(value, dict):
        return {name: about(one) for name, one in value.items()}
    if isinstance(value, list):
        return [about(one) for one in value]
    return pytest.approx(value, rel=1e-3, abs=1e-3) if type(value) is float else value


def names(value: Any) -> Any:
    """The names in an answer, and no value: those of the server belong to its machine."""
    if isinstance(value, dict):
        return {name: names(one) for name, one in value.items()}
    if isinstance(value, list):
        return [names(one) for one in value[:1]]
    lines = value.splitlines() if isinstance(value, str) else []
    return [line.rpartition(" ")[0] for line in lines if line.startswith("siglit")]


def test_a_shown_answer_is_the_one_that_comes(client: httpx.Client) -> None:
    """Field by field: python -m docs.examples writes them again."""
    shown, real = written(), answered(client)
    for content in (shown, real):
        for item in content["/v1/embeddings"]["base64"]["response"]["data"]:
            vector = np.frombuffer(base64.b64decode(item["embedding"]), "<f4")
            item["embedding"] = vector.astype(float).tolist()
    assert {path: real[path] for path in FORMS} == about({path: shown[path] for path in FORMS})
    assert {path: names(real[path]) for path in GETS} == {path: names(shown[path]) for path in GETS}


@pytest.mark.parametrize("path", FORMS)
def test_every_refusal_of_a_route_is_described_and_shown(document: Document, path: str) -> None:
    """In the form that all errors share; each example is a whole error of its status's codes."""
    statuses = {error.code: error.status for error in public_errors()}
    responses = document["paths"][path]["post"]["responses"]
    for status in REFUSALS:
        content = responses[str(status)]["content"]["application/json"]
        assert content["schema"] == {"$ref": f"#/components/schemas/{ErrorResponse.__name__}"}
        examples = content.get("examples", {})
        assert examples or (path, status) == (
            "/embed_text",
            403,
        )  # about URLs, which it has none of
        for code, example in examples.items():
            error = ErrorResponse.model_validate(example["value"]).error
            assert (error.code, statuses[code]) == (code, status)
            assert error.items is None or error.items[0].param == error.param
    told = {s for s, one in responses.items() if "Retry-After" in one.get("headers", {})}
    assert told == {"429", "503"}  # those that pass say when to come back


def test_a_shown_refusal_is_the_one_that_is_answered(document: Document) -> None:
    """A misspelt option, refused by the form itself."""
    content = document["paths"]["/score"]["post"]["responses"]["400"]["content"]
    shown = content["application/json"]["examples"]["invalid_request"]["value"]["error"]
    with pytest.raises(RequestInvalid) as refusal:
        validate(ScoreRequest, {"texts": ["a"], "images": ["b"], "dimension": 4})
    assert shown["message"] == refusal.value.message


def test_every_status_of_the_table_is_described_and_none_of_fastapis(
    document: Document,
) -> None:
    """All but those that are answered before the route is known; and metrics are text."""
    routeless = {405, 408, 431}
    assert {one.status for one in public_errors()} - routeless <= REFUSALS.keys()
    assert "HTTPValidationError" not in document["components"]["schemas"]
    content = document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
    assert set(content) == {"text/plain"}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_loads_nothing_from_another_host(document: Document, page: str) -> None:
    """It works on a closed network, tells nobody who reads it, and shows this document."""
    reader = TestClient(describe())
    response = reader.get(page)
    assert "/openapi.json" in response.text
    assert reader.get("/openapi.json").json() == document
    assert response.status_code == 200
    assert re.findall(r"https?://", response.text) == []
    assets = re.findall(r"""(?:src|href)=["']([^"']+)["']""", response.text)
    assert assets
    for asset in assets:
        assert re.match(r"/(?!/)", asset), asset
        assert (found := reader.get(asset)).status_code == 200, asset
        assert found.content, asset


def test_the_about_text_names_the_headers_a_client_meets(document: Document) -> None:
    """What is not in a schema stands in the introduction."""
    about = document["info"]["description"]
    words = "application/octet-stream no-cache no-store X-Cache Server-Timing X-Embedding-Space"
    assert [word for word in words.split() if word not in about] == []


@pytest.mark.parametrize("page", [*PAGES, "/openapi.json", "/static-offline-docs/swagger-ui.css"])
def test_a_page_has_a_head_and_a_slash_changes_nothing(client: httpx.Client, page: str) -> None:
    """HEAD says what GET would, without a body; no redirect names the host that a client named."""
    whole = client.get(page)
    assert whole.status_code == 200
    head = client.head(page)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content))
    slashed = client.get(page + "/", headers={"host": "evil.example"})
    assert (slashed.status_code, slashed.content) == (200, whole.content)


@pytest.mark.parametrize(
    "path", ["/docs/none", "/docs//", "/docsx", "/redoc/x", "/static-offline-docs/none.js"]
)
def test_below_the_pages_there_is_nothing_else(client: httpx.Client, path: str) -> None:
    """404 in the form that every route shares; a page answers no other method."""
    answer, posted = client.get(path), client.post("/docs", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert (posted.status_code, posted.json()["error"]["code"]) == (405, "method_not_allowed")
    assert posted.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/info/", "/v1/models/", "/livez/", "/readyz/", "/metrics/"])
def test_a_slash_at_the_end_is_the_same_route(client: httpx.Client, path: str) -> None:
    """Not a redirect, which would lose a body with some clients; two slashes are another path."""
    assert client.get(path).status_code == 200
    assert client.get(path + "/").status_code == 404
    for embeds, body in (("/v1/embeddings", {"input": "a"}), ("/embed_text", {"text": "a"})):
        answers = [client.post(embeds + end, json=body).json() for end in ("", "/")]
        assert len({str(one.get("data", one.get("embedding"))) for one in answers}) == 1
