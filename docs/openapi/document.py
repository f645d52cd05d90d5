"""The OpenAPI document: the routes of litapi/http, in the words of FastAPI.

What a reader sees is in two files: `text.md` has the text of the page and of each route,
`examples.json` has requests with the answers of a real server (`python -m docs.examples` writes
them). The forms of requests are the server's own, those of answers are in `answers.py`. Refusals
are written by the code that writes the real ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson
from fastapi import FastAPI, Security
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic import BaseModel

from docs.openapi import answers
from litapi.errors import (
    ItemError,
    ItemOfSeveralParts,
    ItemsInvalid,
    ModelUnknown,
    NotReady,
    RequestInvalid,
    ServiceError,
    Unauthorized,
    public_errors,
)
from litapi.http.access import OPEN_PATHS
from litapi.http.answer import Answer
from litapi.http.forms import foreign, native
from litapi.http.forms.form import OPTION_FIELDS, Options
from litapi.http.forms.validation import INERT, NAMES, VALUES, validate

FOLDER: Final = Path(__file__).parent
EXAMPLES: Final = FOLDER / "examples.json"
TAGS: Final = {
    "POST": {"name": "Embedding", "description": "Vectors, and what can be told from two of them."},
    "GET": {"name": "Server", "description": "What is served, and whether it is well."},
}
FORMS: Final[Mapping[str, tuple[type[BaseModel], type[BaseModel]]]] = {
    "/v1/embeddings": (native.EmbeddingsRequest, answers.EmbeddingsResponse),
    "/embed_text": (native.EmbedTextRequest, answers.EmbedResponse),
    "/embed_image": (native.EmbedImageRequest, answers.EmbedResponse),
    "/score": (native.ScoreRequest, answers.ScoreResponse),
    "/classify": (native.ClassifyRequest, answers.ClassifyResponse),
    "/v2/embed": (foreign.CohereRequest, answers.CohereResponse),
    "/v1/multimodalembeddings": (foreign.VoyageRequest, answers.VoyageResponse),
    "/embed": (foreign.TeiRequest, answers.TeiResponse),
    "/similarity": (foreign.SimilarityRequest, answers.SimilarityResponse),
    **dict.fromkeys(
        ("/rerank", "/v1/rerank", "/v2/rerank"), (foreign.RerankRequest, answers.RerankResponse)
    ),
}
FACTS: Final[Mapping[str, type[BaseModel]]] = {
    "/v1/models": answers.ModelList,
    "/v1/models/{model}": answers.ModelCard,
}
REFUSALS: Final = {
    400: "The request does not have the expected form.",
    401: "A valid API key is needed.",
    403: "Images by URL or by digest are switched off, or not from there.",
    404: "That model is not served here, or no image of that digest is in the cache.",
    413: "More bytes, items, characters or pixels than the limits in /info.",
    415: "A content type or image format that is not read here.",
    422: "An item could not be embedded; `items` names each.",
    429: "At the limit of work in flight, or of a key's rate; see Retry-After.",
    500: "The server failed.",
    503: "Not ready, or the worker was lost; see Retry-After.",
    504: "Not done before the deadline.",
}
ELSEWHERE: Final = {"not_found", "invalid_http", "method_not_allowed"}  # before a route is known
IMAGES: Final = ("image_", "digest_")  # how the codes of an image's errors begin
# `param` of the nth text and the nth image of a request, and how many items precede the first
PARAMS: Final = {
    "/v1/embeddings": (("input[{}]", 0), ("input[{}]", 0)),
    "/embed_text": (("texts[{}]", 0), ("", 0)),
    "/embed_image": (("", 0), ("images[{}]", 0)),
    "/score": (("texts[{}]", 0), ("images[{}]", 2)),
    "/classify": (("labels[{}]", 1), ("image", -1)),
    **dict.fromkeys(
        ("/v2/embed", "/v1/multimodalembeddings", "/embed"), (("inputs[{}]", 0), ("inputs[{}]", 0))
    ),
    "/similarity": (("inputs.sentences[{}]", 1), ("inputs.sentences[{}]", 1)),
    **dict.fromkeys(
        ("/rerank", "/v1/rerank", "/v2/rerank"), (("documents[{}]", 1), ("documents[{}]", 1))
    ),
}
SEVERAL: Final = ("/v2/embed", "/v1/multimodalembeddings")  # where an input may have several parts
HEADERS: Final = {
    "X-Cache": "for each of the first 256 items: hit-l1, hit-l2, join, miss or bypass",
    "X-Embedding-Space": "the space of the vectors: only those of one space may be compared",
    "X-Truncated": "indexes of the first 256 texts that were cut, where any was",
    "Server-Timing": "milliseconds in cache, queue, decode and infer",
    "X-Request-Id": "the request's own, or a new one",
}
OCTETS_HEADERS: Final = {
    "X-Embedding-Shape": "octets only: rows, and numbers (binary: bytes) of a row",
    "X-Embedding-Dtype": "octets only: float32-le, float16-le, int8 or binary",
    "X-Embedding-Scales": "octets of int8 only: a float32 for each row follows them",
}
KEYS: Final = [
    Security(HTTPBearer(auto_error=False, description="One of the server's API keys.")),
    Security(APIKeyHeader(name="X-API-Key", auto_error=False, description="The same.")),
]
NO_KEY: Final[dict[str, Any]] = {"security": [{}]}  # or none, where the server asks for none
RETRY: Final = {
    "Retry-After": {"description": "seconds to wait", "schema": {"type": "integer", "minimum": 1}}
}
BINARY: Final = {"type": "string", "format": "binary"}


def document() -> dict[str, Any]:
    """The document, as `/openapi.json` has it."""
    about, *sections = (FOLDER / "text.md").read_text().split("\n# ")
    app = FastAPI(title="siglit", description=about, version="1", openapi_tags=list(TAGS.values()))
    shown = orjson.loads(EXAMPLES.read_bytes())
    for section in sections:
        head, _, text = section.partition("\n")
        method, path, summary = head.split(" ", 2)
        app.add_api_route(
            path,
            _by_name if "{" in path else _elsewhere,
            methods=[method],
            tags=[TAGS[method]["name"]],
            summary=summary,
            description=text.strip(),
            operation_id=re.sub(r"\W+", "_", path).strip("_"),
            **(_embeds(path, shown[path]) if path in FORMS else _tells(path, shown[path])),
        )
    return app.openapi()


async def _elsewhere() -> None:
    """Stands for a route, whose own function is no FastAPI's."""


async def _by_name(model: str) -> None:
    """The same, with the parameter in the path."""


def _embeds(path: str, examples: Mapping[str, Any]) -> dict[str, Any]:
    """A route that embeds, as FastAPI is told of it."""
    request, response = FORMS[path]
    responses = {200: _success(response, _examples(examples, "response"))}
    return {
        "response_model": response,
        "responses": responses | {status: _refusal(path, status) for status in REFUSALS},
        "dependencies": KEYS,
        "openapi_extra": _request(path, request, _examples(examples, "request")) | NO_KEY,
    }


def _tells(path: str, example: Any) -> dict[str, Any]:
    """A route that tells of the server."""
    kind = PlainTextResponse if path == "/metrics" else JSONResponse
    content = {kind.media_type: {"example": example}}
    none = _errors(
        "No such thing, or no valid API key.", _shown(Unauthorized()), _shown(ModelUnknown())
    )
    responses: dict[int | str, Any] = {
        200: {"description": "Done.", "content": content},
        "4XX": none,
    }
    if path == "/readyz":
        responses[503] = _errors("Not ready to embed.", _shown(NotReady())) | {"headers": RETRY}
    return {
        "response_model": FACTS.get(path),
        "response_class": kind,
        "responses": responses,
        "dependencies": [] if path in OPEN_PATHS else KEYS,
        "openapi_extra": {} if path in OPEN_PATHS else NO_KEY,
    }


# -- answers ---------------------------------------------------------------------------------------


def _examples(examples: Mapping[str, Any], side: str) -> dict[str, Any]:
    return {n: {"summary": one["summary"], "value": one[side]} for n, one in examples.items()}


def _success(response: type[BaseModel], examples: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"examples": examples}}
    octets = response in (answers.EmbeddingsResponse, answers.EmbedResponse)
    if octets:
        content["application/octet-stream"] = {"schema": BINARY}
    headers = {
        name: {"description": text, "schema": {"type": "string"}}
        for name, text in (HEADERS | OCTETS_HEADERS if octets else HEADERS).items()
    }
    return {"description": "Done.", "content": content, "headers": headers}


def _refusal(path: str, status: int) -> dict[str, Any]:
    """One status of a route, with an example of each code that it can have there."""
    errors = [one for one in _met(path) if one.status == status]
    refusal = _errors(REFUSALS[status], *(_example(path, error) for error in errors))
    return refusal | {"headers": RETRY if any(one.retry_after for one in errors) else {}}


def _errors(description: str, *bodies: dict[str, Any]) -> dict[str, Any]:
    """A refusal with its examples, each named by its code."""
    examples = {
        one["error"]["code"]: {"summary": one["error"]["code"], "value": one} for one in bodies
    }
    content = {"application/json": {"examples": examples} if examples else {}}
    return {"model": answers.ErrorResponse, "description": description, "content": content}


def _met(path: str) -> list[type[ServiceError]]:
    """The errors that a route can answer with."""
    strange = {"/embed_text": IMAGES, "/embed_image": ("text_",)}.get(path, ())
    outside = ELSEWHERE if path == "/embed_image" else {*ELSEWHERE, "invalid_multipart"}
    outside = outside if path in SEVERAL else {*outside, ItemOfSeveralParts.code}
    return [
        one
        for one in public_errors()
        if one.code not in outside and not one.code.startswith(strange)
    ]


def _example(path: str, error: type[ServiceError]) -> dict[str, Any]:
    """The body of a refusal by that route."""
    items = []
    if error is RequestInvalid:
        return _shown(_misspelt(path))
    if issubclass(error, ItemError):
        items = [_item(path, error, 1)]
    elif error is ItemsInvalid:
        met = [one for one in _met(path) if issubclass(one, ItemError)]
        items = [_item(path, one, n) for n, one in enumerate(met[:2], 1)]
    return _shown(error(param=items[0]["param"] if items else None), items)


def _shown(error: ServiceError, items: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(Answer.error(error, items).body)
    return body


def _item(path: str, error: type[ItemError], number: int) -> dict[str, Any]:
    text, image = PARAMS[path]
    param, before = text if text[0] and not error.code.startswith(IMAGES) else image
    return {
        "index": before + number,
        "code": error.code,
        "message": error.sentence,
        "param": param.format(number),
    }


def _misspelt(path: str) -> RequestInvalid:
    """The refusal of a field that does not exist."""
    first, *_ = orjson.loads(EXAMPLES.read_bytes())[path].values()
    try:
        validate(FORMS[path][0], {**first["request"], "dimension": 4})
    except RequestInvalid as error:
        return error
    raise AssertionError(f"{path} takes unknown fields")


# -- requests --------------------------------------------------------------------------------------


def _request(path: str, form: type[BaseModel], examples: dict[str, Any]) -> dict[str, Any]:
    schema = form.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    schema["properties"] = _as_read(schema)
    json = {"schema": _inline(schema, definitions), "examples": examples}
    content: dict[str, Any] = {"application/json": json}
    body = {"required": True, "content": content}
    if path != "/embed_image":
        return {"requestBody": body}
    options = _options()
    files = {"images": {"type": "array", "items": BINARY}, **options}
    upload = {"schema": {"type": "object", "properties": files, "required": ["images"]}}
    raw = {"schema": BINARY}
    content |= {"multipart/form-data": upload, "image/*": raw, "application/octet-stream": raw}
    return {"requestBody": body, "parameters": [_parameter(n, s) for n, s in options.items()]}


def _inline(node: Any, definitions: dict[str, Any]) -> Any:
    """The schema with its references put in place: FastAPI knows nothing of these models."""
    if isinstance(node, list):
        return [_inline(one, definitions) for one in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inline(definitions[node["$ref"].rpartition("/")[2]], definitions)
    return {name: _inline(one, definitions) for name, one in node.items()}


def _as_read(schema: dict[str, Any]) -> dict[str, Any]:
    """The fields of a form as `validate` takes them: null is a default, and some do nothing.

    A whole number may be written 2.0, which JSON Schema calls an integer too.
    """
    fields: dict[str, Any] = {}
    for name, field in schema["properties"].items():
        wide = name in schema.get("required", ()) or "anyOf" in field
        keep = ("title", "description", "default")
        outer = {n: value for n, value in field.items() if n in keep}
        inner = {n: value for n, value in field.items() if n not in keep}
        inner = _worded(name, inner)
        fields[name] = field if wide else {**outer, "anyOf": [inner, {"type": "null"}]}
    for name, ours in NAMES.items():
        if ours in fields:
            fields.setdefault(name, {**fields[ours], "description": f"the same as {ours}"})
    for name, agreed in INERT.items():
        chosen = {"enum": [*map(_json_value, agreed), None]} if agreed else {}
        fields.setdefault(name, {"description": "taken from clients, and not used", **chosen})
    return fields


def _worded(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The same with the values that other makers have for the field."""
    words = [word for at, word in VALUES if at == name]
    return {**schema, "enum": schema["enum"] + words} if words else schema


def _json_value(word: str) -> Any:
    return {"true": True, "false": False}.get(word, word)


def _options() -> dict[str, Any]:
    """What may be asked for beside images that come as bytes."""
    properties: dict[str, Any] = Options.model_json_schema()["properties"]
    return {name: _worded(name, _stated(properties[name])) for name in sorted(OPTION_FIELDS)}


def _stated(schema: dict[str, Any]) -> dict[str, Any]:
    """An option outside JSON: there is no null there, and the page must not send a default."""
    rest = {n: value for n, value in schema.items() if n not in ("anyOf", "default", "title")}
    return {**schema.get("anyOf", [{}])[0], **rest}


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    text = f"For a raw body: {schema['description']}"
    return {"name": name, "in": "query", "required": False, "description": text, "schema": schema}
