"""The pages behind /docs and the OpenAPI document. Described here, answered in `app.py`.

The assets come from a package, not from a content network: the page works on a closed network.
Requests and answers that it shows are in `samples.py`; refusals are written by the code that writes
the real ones.
"""

from __future__ import annotations

from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Security
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from litapi.errors import (
    ItemError,
    ItemsInvalid,
    MethodNotAllowed,
    ModelUnknown,
    NotReady,
    RequestInvalid,
    RouteUnknown,
    ServiceError,
    Unauthorized,
    public_errors,
)
from litapi.http.access import OPEN_PATHS
from litapi.http.answer import Answer
from litapi.http.forms import (
    INERT,
    OPTION_FIELDS,
    ClassifyRequest,
    ClassifyResponse,
    EmbeddingsRequest,
    EmbeddingsResponse,
    EmbedImageRequest,
    EmbedResponse,
    EmbedTextRequest,
    ErrorResponse,
    ModelCard,
    ModelList,
    Options,
    ScoreRequest,
    ScoreResponse,
    validate,
)
from litapi.http.samples import FACTS, SAMPLES

ABOUT: Final = """SigLIP2 embeddings of text and images. A text and an image that belong together
have vectors with a high dot product; every vector has unit length.

    curl localhost:8080/embed_text -d '{"text": "a red circle"}'
    curl localhost:8080/embed_image -H 'content-type: image/png' --data-binary @circle.png

| send | and |
|---|---|
| `Accept: application/octet-stream` | the answer is raw little-endian rows: `X-Embedding-Shape` \
and `X-Embedding-Dtype` say which |
| `Cache-Control: no-cache` | everything is computed afresh |
| `Cache-Control: no-store` | and leaves no trace in the cache |
| `Authorization: Bearer KEY` or `X-API-Key: KEY` | you are let in, where the server asks for keys |
| `Authorization: Basic …` with the key as password | the same: what a browser asks you for |
| `X-Request-Id: ID` | it comes back in the answer, and stands in the server's log |

In a JSON body null stands for the default of a field. What cannot change a vector (`user`,
`input_type`, `task`, `metadata`, `priority`, `truncate: "END"`) is taken and not used.

Answers carry `X-Cache` (for each item: hit-l1, hit-l2, join, miss, bypass), `X-Truncated` (items
that were cut at 64 tokens), `Server-Timing` and `X-Request-Id`. Every error has the same form, with
a `code` to rely on and a `message` to read.
"""
TAGS: Final = [
    {"name": "Embedding", "description": "Vectors, and what can be told from two of them."},
    {"name": "Server", "description": "What is served, and whether it is well."},
]
PAGE: Final = {
    "defaultModelsExpandDepth": 0,
    "displayRequestDuration": True,
    "tryItOutEnabled": True,
}
REFUSALS: Final = {
    400: "The request does not have the expected form.",
    401: "A valid API key is needed.",
    403: "Images by URL are switched off, or not from there.",
    404: "That model is not served here.",
    413: "More bytes, items, characters or pixels than the limits in /info.",
    415: "A content type or image format that is not read here.",
    422: "An item could not be embedded; `items` names each.",
    429: "At the limit of work in flight, or of a key's rate; see Retry-After.",
    500: "The server failed.",
    503: "Not ready, or the worker was lost; see Retry-After.",
    504: "Not done before the deadline.",
}
ELSEWHERE: Final = {"not_found", "invalid_http", "method_not_allowed"}  # before a route is known
ROUTES: Final = {
    "/v1/embeddings": """OpenAI form: the official client works unchanged, with `base_url` set to
this server's `/v1`. `input` is a text, or a list in which each member is one of

- `"a text"`, `{"text": …}`, `{"type": "text", "text": …}`
- `"data:image/png;base64,…"`, `{"image": …}`, `{"type": "image_url", "image_url": {"url": …}}`

If any item is refused the request is, and `items` names each bad one; the good ones stay in the
cache, so that asking again costs nothing.""",
    "/embed_text": """`text` is answered with `embedding`, `texts` with `embeddings`. A refused text
of a list is `null`, with its reason in `errors`, and harms no other. Texts are lower-cased and cut
at 64 tokens, as SigLIP2 was trained; `truncated` says which were.""",
    "/embed_image": """As JSON: exactly one of `image`, `images`, `url`, `urls`. As bytes, options
beside them:

    curl localhost:8080/embed_image -F images=@one.png -F images=@two.jpg -F dimensions=4
    curl 'localhost:8080/embed_image?dimensions=4' -H 'content-type: image/png' \
--data-binary @one.png

A refused image of a list is `null`, with its reason in `errors`, and harms no other.""",
    "/score": """Every text against every image: the cosine of their vectors, and the model's own
probability that they belong together, `sigmoid(logit_scale · cosine + logit_bias)`.""",
    "/classify": """Each label is put into the template, and the captions are ranked for the image.
Every probability stands alone: a picture may be of several labels, or of none.""",
}
FACT_ROUTES: Final = {
    "/v1/models": ("The served model", "OpenAI form of a list; there is one model in it."),
    "/v1/models/{model}": ("One model", "By the name that `/v1/models` gives."),
    "/info": (
        "Model, limits, workers, cache",
        "What may be sent, and by what vectors are made: a `fingerprint` of it for each kind.",
    ),
    "/livez": ("The process runs", "Needs no key. A server that fails this is to be replaced."),
    "/readyz": ("It can embed", "Needs no key. 503 while it loads, ends, or cannot reach a model."),
    "/metrics": ("Prometheus metrics", "Of all processes of this server together."),
}
# where the nth text and the nth image of a request stand, and how many items come before the first
PLACES: Final = {
    "/v1/embeddings": (("input[{}]", 0), ("input[{}]", 0)),
    "/embed_text": (("texts[{}]", 0), ("", 0)),
    "/embed_image": (("", 0), ("images[{}]", 0)),
    "/score": (("texts[{}]", 0), ("images[{}]", 2)),
    "/classify": (("labels[{}]", 1), ("image", -1)),
}
KEYS: Final = [
    Security(HTTPBearer(auto_error=False, description="One of the server's API keys.")),
    Security(APIKeyHeader(name="X-API-Key", auto_error=False, description="The same.")),
]
NO_KEY: Final[dict[str, Any]] = {"security": [{}]}  # or none, where the server asks for none
RETRY: Final = {
    "Retry-After": {"description": "seconds to wait", "schema": {"type": "integer", "minimum": 1}}
}


def describe() -> FastAPI:
    """The FastAPI application that serves the pages."""
    app = FastAPIOffline(
        title="siglit",
        description=ABOUT,
        version="1",
        openapi_tags=TAGS,
        swagger_ui_parameters=PAGE,
        redirect_slashes=False,  # the redirect would go to whatever host the client named
        exception_handlers={HTTPException: _refused},
    )
    post = _Posts(app)
    post(
        "/v1/embeddings",
        "OpenAI embeddings of texts and images",
        EmbeddingsRequest,
        EmbeddingsResponse,
    )
    post("/embed_text", "Embed texts", EmbedTextRequest, EmbedResponse)
    post("/embed_image", "Embed images", EmbedImageRequest, EmbedResponse, uploads=True)
    post("/score", "Score texts against images", ScoreRequest, ScoreResponse)
    post("/classify", "Rank labels for an image", ClassifyRequest, ClassifyResponse)
    forms: dict[str, type[BaseModel]] = {"/v1/models": ModelList, "/v1/models/{model}": ModelCard}
    for path in FACT_ROUTES:
        _get(app, path, forms.get(path))
    return app


async def _refused(request: Request, error: Exception) -> Response:
    """What the pages do not have, in the form that every route shares."""
    del request
    status, given = getattr(error, "status_code", 500), getattr(error, "headers", None) or {}
    refusal: ServiceError = RouteUnknown() if status == 404 else ServiceError()
    if status == 405:
        refusal = MethodNotAllowed({*given.get("Allow", "GET").split(", "), "HEAD"})
    answer = Answer.error(refusal)
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return Response(answer.body, answer.status, headers)


async def _elsewhere() -> None:
    """Answered by the front."""


async def _by_name(model: str) -> None:
    """Answered by the front."""


class _Posts:
    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def __call__(
        self,
        path: str,
        summary: str,
        request: type[BaseModel],
        response: type[BaseModel],
        uploads: bool = False,
    ) -> None:
        schema = request.model_json_schema(ref_template="#/components/schemas/{model}")
        definitions = schema.pop("$defs", {})
        schema["properties"] = _as_read(schema)
        asked = {one.name: _example(one.summary, one.request) for one in SAMPLES[path]}
        json = {"schema": _inline(schema, definitions), "examples": asked}
        content: dict[str, Any] = {"application/json": json}
        if uploads:
            content |= _uploads()
        extra: dict[str, Any] = {"requestBody": {"required": True, "content": content}, **NO_KEY}
        if uploads:
            extra["parameters"] = [_parameter(n, s) for n, s in _options().items()]
        responses: dict[int | str, dict[str, Any]] = {200: _success(path, response)}
        responses |= {code: _refusal(path, request, code) for code in REFUSALS}
        self._app.add_api_route(
            path,
            _elsewhere,
            methods=["POST"],
            tags=["Embedding"],
            summary=summary,
            description=ROUTES[path],
            response_model=response,
            responses=responses,
            dependencies=KEYS,
            openapi_extra=extra,
            operation_id=path.strip("/").replace("/", "_"),
        )


# -- answers ---------------------------------------------------------------------------------------


def _example(summary: str, value: Any) -> dict[str, Any]:
    return {"summary": summary, "value": value}


def _success(path: str, response: type[BaseModel]) -> dict[str, Any]:
    answered = {one.name: _example(one.summary, one.response) for one in SAMPLES[path]}
    content: dict[str, Any] = {"application/json": {"examples": answered}}
    headers = _texts(
        {
            "X-Cache": "for each of the first 256 items: hit-l1, hit-l2, join, miss or bypass",
            "X-Truncated": "indexes of the first 256 texts that were cut, where any was",
            "Server-Timing": "milliseconds in cache, queue, decode and infer",
            "X-Request-Id": "the request's own, or a new one",
        }
    )
    if response in (EmbeddingsResponse, EmbedResponse):
        rows = {"type": "string", "format": "binary"}
        content["application/octet-stream"] = {"schema": rows}
        headers |= _texts(
            {
                "X-Embedding-Shape": "octets only: rows, and numbers (binary: bytes) of a row",
                "X-Embedding-Dtype": "octets only: float32-le, float16-le, int8 or binary",
                "X-Embedding-Scales": "octets of int8 only: a float32 for each row follows them",
            }
        )
    return {"description": "Done.", "content": content, "headers": headers}


def _texts(headers: dict[str, str]) -> dict[str, Any]:
    return {n: {"description": d, "schema": {"type": "string"}} for n, d in headers.items()}


def _refusal(path: str, form: type[BaseModel], status: int) -> dict[str, Any]:
    """One status of a route, with an example of each code that it can have there."""
    errors = [one for one in public_errors() if one.status == status and _may_meet(path, one)]
    examples = {e.code: _example(e.code, _shown(path, form, e)) for e in errors}
    return {
        "model": ErrorResponse,
        "description": REFUSALS[status],
        "content": {"application/json": {"examples": examples} if examples else {}},
        "headers": RETRY if any(error.retry_after for error in errors) else {},
    }


def _fact_refusal(description: str, *errors: type[ServiceError]) -> dict[str, Any]:
    shown = {e.code: _example(e.code, orjson.loads(Answer.error(e()).body)) for e in errors}
    content = {"application/json": {"examples": shown}}
    return {"model": ErrorResponse, "description": description, "content": content}


def _may_meet(path: str, error: type[ServiceError]) -> bool:
    kind = error.code.partition("_")[0]
    strange = {"/embed_text": ("image",), "/embed_image": ("text",)}.get(path, ())
    multipart = error.code != "invalid_multipart" or path == "/embed_image"
    return kind not in strange and multipart and error.code not in ELSEWHERE


def _shown(path: str, form: type[BaseModel], error: type[ServiceError]) -> Any:
    """The body of a refusal, as the front would write it."""
    if error is RequestInvalid:
        return orjson.loads(Answer.error(_misspelt(form)).body)
    items = []
    if issubclass(error, ItemError):
        items = [_item(path, error, 1)]
    elif error is ItemsInvalid:
        met = [e for e in public_errors() if issubclass(e, ItemError) and _may_meet(path, e)]
        items = [_item(path, one, n) for n, one in enumerate(met[:2], 1)]
    place = items[0]["param"] if items else None
    return orjson.loads(Answer.error(error(param=place), items).body)


def _item(path: str, error: type[ItemError], number: int) -> dict[str, Any]:
    text, image = PLACES[path]
    kind = text if text[0] and not error.code.startswith("image") else image
    place, before = kind[0].format(number), number + kind[1]
    return {"index": before, "code": error.code, "message": error.sentence, "param": place}


def _misspelt(form: type[BaseModel]) -> RequestInvalid:
    """What is answered to a field that there is none of."""
    known: Any = form.model_config["json_schema_extra"]
    try:
        validate(form, {**known["examples"][0], "dimension": 4})
    except RequestInvalid as error:
        return error
    raise AssertionError(f"{form.__name__} takes unknown fields")


# -- requests --------------------------------------------------------------------------------------


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
        fields[name] = field if wide else {**outer, "anyOf": [inner, {"type": "null"}]}
    for name, agreed in INERT.items():
        chosen = {"enum": [*map(_json_value, agreed), None]} if agreed else {}
        fields.setdefault(name, {"description": "taken from clients, and not used", **chosen})
    return fields


def _json_value(word: str) -> Any:
    return {"true": True, "false": False}.get(word, word)


def _options() -> dict[str, Any]:
    """What may be asked for beside images that come as bytes."""
    properties: dict[str, Any] = Options.model_json_schema()["properties"]
    return {name: _stated(properties[name]) for name in sorted(OPTION_FIELDS)}


def _stated(schema: dict[str, Any]) -> dict[str, Any]:
    """An option outside JSON: there is no null there, and the page must not send a default."""
    rest = {n: value for n, value in schema.items() if n not in ("anyOf", "default", "title")}
    return {**schema.get("anyOf", [{}])[0], **rest}


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    text = f"For a raw body: {schema['description']}"
    return {"name": name, "in": "query", "required": False, "description": text, "schema": schema}


def _uploads() -> dict[str, Any]:
    binary = {"type": "string", "format": "binary"}
    files = {"images": {"type": "array", "items": binary}, **_options()}
    form = {"schema": {"type": "object", "properties": files, "required": ["images"]}}
    raw = {"schema": binary}
    return {"multipart/form-data": form, "image/*": raw, "application/octet-stream": raw}


def _get(app: FastAPI, path: str, response: type[BaseModel] | None) -> None:
    summary, description = FACT_ROUTES[path]
    kind = "text/plain" if path == "/metrics" else "application/json"
    answers: dict[int | str, dict[str, Any]] = {
        200: {"description": "Done.", "content": {kind: {"example": FACTS[path]}}},
        "4XX": _fact_refusal("No such thing, or no valid API key.", Unauthorized, ModelUnknown),
    }
    if path == "/readyz":
        answers[503] = _fact_refusal("Not ready to embed.", NotReady) | {"headers": RETRY}
    app.add_api_route(
        path,
        _by_name if "{" in path else _elsewhere,
        methods=["GET"],
        tags=["Server"],
        summary=summary,
        description=description,
        response_model=response,
        response_class=PlainTextResponse if path == "/metrics" else JSONResponse,
        responses=answers,
        dependencies=[] if path in OPEN_PATHS else KEYS,
        openapi_extra={} if path in OPEN_PATHS else NO_KEY,
        operation_id=path.strip("/").replace("/", "_").replace("{", "").replace("}", ""),
    )
