"""The form of each route that embeds, and a body for it."""

from copy import deepcopy
from typing import Any

from docs.examples import RED_DOT
from docs.openapi import document
from litapi.http.forms.form import Form

FORMS: dict[str, type[Form]] = {
    path: form for path, (form, _) in document.FORMS.items() if issubclass(form, Form)
}


BODIES: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"input": ["a red circle", {"image": RED_DOT}]},
    "/embed_text": {"texts": ["a red circle", "two blue squares"]},
    "/embed_image": {"image": RED_DOT},
    "/score": {"texts": ["a red circle"], "images": [RED_DOT]},
    "/classify": {"image": RED_DOT, "labels": ["red", "green", "blue"]},
    "/v2/embed": {"images": [RED_DOT], "embedding_types": ["float", "int8"]},
    "/v1/multimodalembeddings": {
        "inputs": [
            {"content": [{"type": "text", "text": "a red circle"}]},
            {"content": [{"type": "image_base64", "image_base64": RED_DOT}]},
        ]
    },
    "/embed": {"inputs": ["a red circle", RED_DOT], "normalize": True},
    "/similarity": {
        "inputs": {"source_sentence": "a red dot", "sentences": ["a red circle", RED_DOT]}
    },
    **{
        path: {"query": "a red dot", "documents": [RED_DOT, {"text": "a red circle"}]}
        for path in ("/rerank", "/v1/rerank", "/v2/rerank")
    },
}


def body_for(path: str) -> dict[str, Any]:
    """What the route takes; the caller's to change."""
    return deepcopy(BODIES[path])
