"""The pages behind /docs and the OpenAPI document. Described here, answered in `front.py`.

The assets come from a package, not from a content network: the page works on a closed network.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel

from litapi.forms import (
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
    """Stands for a route that the front answers before FastAPI is asked."""


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
        self._app.add_api_route(
            path,
            _elsewhere,
            methods=["POST"],
            summary=summary,
            description=request.__doc__ or "",
            response_model=response,
            responses={
                code: {"model": ErrorResponse, "description": d} for code, d in REFUSALS.items()
            },
            openapi_extra={"requestBody": {"required": True, "content": content}},
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


def _uploads() -> dict[str, Any]:
    binary = {"type": "string", "format": "binary"}
    files = {"images": {"type": "array", "items": binary}}
    form = {"schema": {"type": "object", "properties": files, "required": ["images"]}}
    return {"multipart/form-data": form, "image/*": {"schema": binary}}


def _get(app: FastAPI, path: str, summary: str, response: type[BaseModel] | None) -> None:
    async def endpoint(model: str) -> None: ...

    app.add_api_route(
        path,
        endpoint if "{" in path else _elsewhere,
        methods=["GET"],
        summary=summary,
        response_model=response,
        operation_id=path.strip("/").replace("/", "_").replace("{", "").replace("}", ""),
    )
