"""The OpenAPI document and its pages: complete, true to the forms, and served from here alone."""

import asyncio
import base64
import re
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from docs.examples import answered, written
from docs.openapi.answers import ErrorResponse
from docs.openapi.document import REFUSALS
from litapi.errors import RequestInvalid, public_errors
from litapi.http.access import OPEN_PATHS
from litapi.http.forms.options import OPTION_FIELDS
from litapi.http.forms.scores import ScoreRequest
from litapi.http.forms.validation import INERT, NAMES, validate
from litapi.http.openapi import describe
from tests.support.forms import FORMS
from tests.support.refusals import REFUSALS as TABLE

GETS = ("/v1/models", "/v1/models/{model}", "/info", "/metrics", "/livez", "/readyz")
PAGES = ("/docs", "/redoc")


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return describe()


@pytest.fixture(scope="module")
def document(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def get(app: FastAPI, path: str) -> httpx.Response:
    """One page, fetched without a network."""

    async def fetch() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://siglit") as client:
            return await client.get(path)

    return asyncio.run(fetch())


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every object of the document."""
    if isinstance(node, dict):
        yield node
    for inner in (
        node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    ):
        yield from nodes(inner)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and description of each route."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def body_of(document: dict[str, Any], path: str) -> dict[str, Any]:
    """What a route takes, by content type."""
    content: dict[str, Any] = document["paths"][path]["post"]["requestBody"]["content"]
    return content


def test_the_document_is_openapi_31(document: dict[str, Any]) -> None:
    """The keys that the standard requires, of the kinds that it requires."""
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    assert isinstance(document["info"]["title"], str)
    assert isinstance(document["info"]["version"], str)
    assert all(path.startswith("/") for path in document["paths"])
    for path, method, operation in operations(document):
        assert method in ("get", "post"), path
        assert operation["responses"], path
        for status, response in operation["responses"].items():
            assert re.fullmatch(r"[1-5](\d\d|XX)|default", status), path
            assert isinstance(response["description"], str), path
        for parameter in operation.get("parameters", []):
            assert {"name", "in", "schema"} <= parameter.keys(), path
            assert parameter["in"] != "path" or parameter["required"], path
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert content["schema"], path


def test_every_reference_resolves(document: dict[str, Any]) -> None:
    """A page with a dangling reference shows an error instead of a form."""
    for node in nodes(document):
        if isinstance(node.get("$ref"), str):
            target: Any = document
            for step in node["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            assert isinstance(target, dict)


def test_parameters_in_a_path_are_described_and_no_others(document: dict[str, Any]) -> None:
    """The standard asks for a parameter for each template, and one template for each parameter."""
    for path, _, operation in operations(document):
        named = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path))


def test_operation_ids_are_unique_and_fit_for_code(document: dict[str, Any]) -> None:
    """Generated clients call their methods by them."""
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() for name in names)


def test_every_route_of_the_interface_and_no_other_is_described(document: dict[str, Any]) -> None:
    """What is not in it does not exist for its readers, and it promises nothing else."""
    assert set(document["paths"]) == {*FORMS, *GETS}
    assert all(operation["summary"] for _, _, operation in operations(document))


def test_a_key_may_be_given_everywhere_but_to_health(document: dict[str, Any]) -> None:
    """Either header, or none where the server asks for none; the page has a field for them."""
    schemes = document["components"]["securitySchemes"]
    assert {one.get("scheme") or one["name"] for one in schemes.values()} == {"bearer", "X-API-Key"}
    for path, _, operation in operations(document):
        asked = operation.get("security", [])
        assert {name for one in asked for name in one} == (
            set() if path in OPEN_PATHS else set(schemes)
        ), path
        assert ({} in asked) == (path not in OPEN_PATHS), path


def test_no_description_is_the_codes_own(document: dict[str, Any]) -> None:
    """A docstring about how the code is built is not for those who call it."""
    for path, _, operation in operations(document):
        assert "FastAPI" not in operation.get("description", ""), path


@pytest.mark.parametrize("path", FORMS)
def test_every_shown_request_has_its_answer_beside_it(document: dict[str, Any], path: str) -> None:
    """Under the same name, so that a reader finds one by the other."""
    asked = body_of(document, path)["application/json"]["examples"]
    answered = document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]
    assert asked.keys() == answered["examples"].keys()
    for example in asked.values():
        assert validate(FORMS[path], example["value"])


@pytest.mark.parametrize("path", FORMS)
def test_every_option_tells_what_it_does(document: dict[str, Any], path: str) -> None:
    """A field with no sentence leaves its reader to guess."""
    properties = body_of(document, path)["application/json"]["schema"]["properties"]
    assert [name for name, one in properties.items() if not one.get("description")] == []


@pytest.mark.parametrize("path", FORMS)
def test_every_field_of_a_form_is_described(document: dict[str, Any], path: str) -> None:
    """The schema is the form, whole: all fields, the required ones, those that do nothing."""
    schema = body_of(document, path)["application/json"]["schema"]
    form = FORMS[path].model_fields
    named = {name for name, ours in NAMES.items() if ours in form}
    assert set(schema["properties"]) == set(form) | set(INERT) | named
    assert set(schema.get("required", [])) == {
        n for n, field in form.items() if field.is_required()
    }
    assert schema["additionalProperties"] is False


def test_an_image_may_be_uploaded_in_three_ways(document: dict[str, Any]) -> None:
    """JSON, a form with files, or the bytes themselves."""
    content = body_of(document, "/embed_image")
    assert {"application/json", "multipart/form-data", "image/*"} <= content.keys()
    assert content["image/*"]["schema"]["format"] == "binary"


def test_the_options_beside_a_raw_image_are_described(document: dict[str, Any]) -> None:
    """A raw body leaves only the query for them, and a form only its fields."""
    operation = document["paths"]["/embed_image"]["post"]
    query = {p["name"] for p in operation.get("parameters", []) if p["in"] == "query"}
    fields = operation["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert query >= OPTION_FIELDS
    assert fields.keys() >= OPTION_FIELDS


def test_no_option_beside_json_is_sent_unasked(document: dict[str, Any]) -> None:
    """The page fills in defaults, and an option in the query of a JSON body is refused."""
    parameters = document["paths"]["/embed_image"]["post"]["parameters"]
    assert [one["name"] for one in parameters if "default" in one["schema"]] == []


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
def test_every_refusal_of_a_route_is_described(document: dict[str, Any], path: str) -> None:
    """Each has the one form that all errors share."""
    responses = document["paths"][path]["post"]["responses"]
    assert {str(status) for status in REFUSALS} <= responses.keys()
    for status in REFUSALS:
        schema = responses[str(status)]["content"]["application/json"]["schema"]
        assert schema == {"$ref": f"#/components/schemas/{ErrorResponse.__name__}"}


@pytest.mark.parametrize("path", FORMS)
def test_every_refusal_is_shown_by_its_codes(document: dict[str, Any], path: str) -> None:
    """Each example is a whole error, whose code has the status that it stands under."""
    statuses = {error.code: error.status for error in public_errors()}
    for status in REFUSALS:
        if (path, status) == ("/embed_text", 403):  # about URLs, which it does not take
            continue
        content = document["paths"][path]["post"]["responses"][str(status)]["content"]
        examples = content["application/json"]["examples"]
        assert examples
        for code, example in examples.items():
            error = ErrorResponse.model_validate(example["value"]).error
            assert (error.code, statuses[code]) == (code, status)
            assert error.items is None or error.items[0].param == error.param


def test_a_shown_refusal_is_the_one_that_is_answered(document: dict[str, Any]) -> None:
    """A misspelt option, refused by the form itself."""
    content = document["paths"]["/score"]["post"]["responses"]["400"]["content"]
    shown = content["application/json"]["examples"]["invalid_request"]["value"]["error"]
    with pytest.raises(RequestInvalid) as refusal:
        validate(ScoreRequest, {"texts": ["a"], "images": ["b"], "dimension": 4})
    assert shown["message"] == refusal.value.message


@pytest.mark.parametrize("path", FORMS)
def test_a_refusal_that_passes_says_when_to_come_back(document: dict[str, Any], path: str) -> None:
    """Retry-After stands under 429 and 503, and under no other."""
    responses = document["paths"][path]["post"]["responses"]
    told = {s for s, one in responses.items() if "Retry-After" in one.get("headers", {})}
    assert told == {"429", "503"}


def test_every_status_of_the_table_is_described() -> None:
    """All but those that are answered before it is known which route was meant."""
    routeless = {405, 408, 431}
    assert {one.status for one in TABLE} - routeless <= REFUSALS.keys()


def test_no_answer_is_described_that_only_fastapi_would_give(document: dict[str, Any]) -> None:
    """The front answers, and its errors have another form than FastAPI's."""
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_metrics_are_described_as_text(document: dict[str, Any]) -> None:
    """A generated client would try to read them as JSON otherwise."""
    content = document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
    assert set(content) == {"text/plain"}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_loads_nothing_from_another_host(app: FastAPI, page: str) -> None:
    """The documentation works on a closed network, and tells nobody who reads it."""
    response = get(app, page)
    assert response.status_code == 200
    assets = re.findall(r"""(?:src|href)=["']([^"']+)["']""", response.text)
    assert assets
    assert [one for one in assets if not re.match(r"/(?!/)", one)] == []
    assert re.findall(r"https?://", response.text) == []


@pytest.mark.parametrize("page", PAGES)
def test_every_asset_of_a_page_is_there(app: FastAPI, page: str) -> None:
    """The package that brings them brings all of them."""
    for asset in re.findall(r"""(?:src|href)=["']([^"']+)["']""", get(app, page).text):
        response = get(app, asset)
        assert response.status_code == 200, asset
        assert response.content, asset


def test_the_document_is_where_the_page_looks_for_it(app: FastAPI) -> None:
    """/docs fetches /openapi.json, and that is the document."""
    assert "/openapi.json" in get(app, "/docs").text
    assert get(app, "/openapi.json").json() == app.openapi()


def test_the_about_text_names_the_headers_a_client_meets(document: dict[str, Any]) -> None:
    """What is not in a schema stands in the introduction."""
    about = document["info"]["description"]
    for word in (
        "application/octet-stream",
        "no-cache",
        "no-store",
        "X-Cache",
        "Server-Timing",
        "X-Embedding-Space",
    ):
        assert word in about


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
    """404 in the form that every route shares."""
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_a_page_answers_no_other_method(client: httpx.Client) -> None:
    """405 in the same form, with what it does answer."""
    answer = client.post("/docs", json={})
    assert answer.status_code == 405
    assert answer.json()["error"]["code"] == "method_not_allowed"
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/info/", "/v1/models/", "/livez/", "/readyz/", "/metrics/"])
def test_a_slash_at_the_end_is_the_same_route(client: httpx.Client, path: str) -> None:
    """As many frameworks have it; two slashes are another path."""
    assert client.get(path).status_code == 200
    assert client.get(path + "/").status_code == 404


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/embeddings/", {"input": "a"}), ("/embed_text/", {"text": "a"})]
)
def test_a_route_with_a_slash_embeds_the_same(
    client: httpx.Client, path: str, body: dict[str, str]
) -> None:
    """No redirect, which would lose the body with some clients."""
    first, second = client.post(path[:-1], json=body), client.post(path, json=body)
    assert second.status_code == 200
    key = "data" if "data" in first.json() else "embedding"
    assert second.json()[key] == first.json()[key]
