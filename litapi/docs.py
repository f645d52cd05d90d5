"""The pages behind /docs and the OpenAPI document. Described here, answered in `front.py`.

The assets come from a package, not from a content network: the page works on a closed network.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel

from litapi.forms import (
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
)

ABOUT: Final = """SigLIP2 embeddings of text and images. Vectors are unit-length float32.

Send `Accept: application/octet-stream` for raw little-endian float32 rows, `Cache-Control:
no-cache` for a fresh computation, `no-store` to leave no trace in the cache. Answers carry
`X-Cache` (for each item: hit-l1, hit-l2, join, miss, bypass), `Server-Timing` and `X-Request-Id`.
"""
REFUSALS: Final = {
    400: "The request does not have the expected form.",
    401: "A valid API key is needed.",
    403: "Images by URL are switched off.",
    404: "That model is not served here.",
    413: "More bytes, items, characters or pixels than the limits in /info.",
    415: "A content type or image format that is not read here.",
    422: "An item could not be embedded; `items` names each.",
    429: "At the limit of work in flight; see Retry-After.",
    500: "The server failed.",
    503: "Not ready, or the worker was lost; see Retry-After.",
    504: "Not done before the deadline.",
}


def describe() -> FastAPI:
    """The FastAPI application that serves the pages."""
    app = FastAPIOffline(title="siglit", description=ABOUT, version="1")
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
    _get(app, "/v1/models", "The served model", ModelList)
    _get(app, "/v1/models/{model}", "One model", ModelCard)
    _get(app, "/info", "Model, limits, workers, cache", None)
    _get(app, "/livez", "The process runs", None)
    _get(app, "/readyz", "It can embed", None)
    _get(app, "/metrics", "Prometheus metrics of all processes", None)
    return app


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
        content: dict[str, Any] = {"application/json": {"schema": _inline(schema, definitions)}}
        if uploads:
            content |= _uploads()
        extra: dict[str, Any] = {"requestBody": {"required": True, "content": content}}
        if uploads:
            extra["parameters"] = [_parameter(n, s) for n, s in _options().items()]
        self._app.add_api_route(
            path,
            _elsewhere,
            methods=["POST"],
            tags=["Embedding"],
            summary=summary,
            description=request.__doc__ or "",
            response_model=response,
            responses={
                code: {"model": ErrorResponse, "description": d} for code, d in REFUSALS.items()
            },
            openapi_extra=extra,
            operation_id=path.strip("/").replace("/", "_"),
        )


def _inline(node: Any, definitions: dict[str, Any]) -> Any:
    """The schema with its references put in place: FastAPI knows nothing of these models."""
    if isinstance(node, list):
        return [_inline(one, definitions) for one in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inline(definitions[node["$ref"].rpartition("/")[2]], definitions)
    return {name: _inline(one, definitions) for name, one in node.items()}


def _options() -> dict[str, Any]:
    """What may be asked for beside images that come as bytes."""
    properties: dict[str, Any] = Options.model_json_schema()["properties"]
    return {name: properties[name] for name in sorted(OPTION_FIELDS)}


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    text = f"For a raw body. {schema.get('description', '')}".strip()
    return {"name": name, "in": "query", "required": False, "description": text, "schema": schema}


def _uploads() -> dict[str, Any]:
    binary = {"type": "string", "format": "binary"}
    files = {"images": {"type": "array", "items": binary}, **_options()}
    form = {"schema": {"type": "object", "properties": files, "required": ["images"]}}
    raw = {"schema": binary}
    return {"multipart/form-data": form, "image/*": raw, "application/octet-stream": raw}


def _get(app: FastAPI, path: str, summary: str, response: type[BaseModel] | None) -> None:
    refusals: dict[int | str, dict[str, Any]] = {
        "4XX": {"model": ErrorResponse, "description": "No such thing, or no valid API key."}
    }
    if path == "/readyz":
        refusals[503] = {"model": ErrorResponse, "description": "Not ready to embed."}
    app.add_api_route(
        path,
        _by_name if "{" in path else _elsewhere,
        methods=["GET"],
        tags=["Server"],
        summary=summary,
        description="",
        response_model=response,
        response_class=PlainTextResponse if path == "/metrics" else JSONResponse,
        responses=refusals,
        operation_id=path.strip("/").replace("/", "_").replace("{", "").replace("}", ""),
    )
