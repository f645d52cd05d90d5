"""Requests that /docs shows, each with the answer that the demo checkpoint gives to it.

A test sends every one of them to a real server, so what is shown is what happens. Vectors are cut
to four numbers here only so that a reader can see a whole answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from litapi.errors import ImageBase64Invalid
from litapi.http.forms import RED_DOT


@dataclass(frozen=True, slots=True)
class Sample:
    """A JSON request to one route, and its answer."""

    name: str
    summary: str
    request: Any
    response: Any


SAMPLES: Final[Mapping[str, Sequence[Sample]]] = {
    "/v1/embeddings": [
        Sample(
            "text",
            "A text",
            {"input": "a red circle", "dimensions": 4},
            {
                "object": "list",
                "data": [
                    {
                        "object": "embedding",
                        "index": 0,
                        "embedding": [-0.017392876, -0.6519726, 0.25883326, -0.7124848],
                    }
                ],
                "model": "siglit-demo",
                "usage": {"prompt_tokens": 4, "total_tokens": 4},
            },
        ),
        Sample(
            "mixed",
            "A text and an image in one request",
            {"input": ["a red circle", RED_DOT], "dimensions": 4},
            {
                "object": "list",
                "data": [
                    {
                        "object": "embedding",
                        "index": 0,
                        "embedding": [-0.017392876, -0.6519726, 0.25883326, -0.7124848],
                    },
                    {
                        "object": "embedding",
                        "index": 1,
                        "embedding": [-0.80847543, -0.346396, -0.3761218, 0.29139262],
                    },
                ],
                "model": "siglit-demo",
                "usage": {"prompt_tokens": 260, "total_tokens": 260},
            },
        ),
        Sample(
            "parts",
            "OpenAI content parts",
            {
                "input": [
                    {"type": "text", "text": "a red circle"},
                    {"type": "image_url", "image_url": {"url": RED_DOT}},
                ],
                "dimensions": 4,
            },
            {
                "object": "list",
                "data": [
                    {
                        "object": "embedding",
                        "index": 0,
                        "embedding": [-0.017392876, -0.6519726, 0.25883326, -0.7124848],
                    },
                    {
                        "object": "embedding",
                        "index": 1,
                        "embedding": [-0.80847543, -0.346396, -0.3761218, 0.29139262],
                    },
                ],
                "model": "siglit-demo",
                "usage": {"prompt_tokens": 260, "total_tokens": 260},
            },
        ),
        Sample(
            "base64",
            "base64, as the official client asks for it",
            {"input": "a red circle", "dimensions": 4, "encoding_format": "base64"},
            {
                "object": "list",
                "data": [
                    {"object": "embedding", "index": 0, "embedding": "gXuOvK3nJr/LhYQ+Z2U2vw=="}
                ],
                "model": "siglit-demo",
                "usage": {"prompt_tokens": 4, "total_tokens": 4},
            },
        ),
        Sample(
            "int8",
            "int8, each vector with its scale",
            {
                "input": ["a red circle", "two blue squares"],
                "dimensions": 4,
                "embedding_type": "int8",
            },
            {
                "object": "list",
                "data": [
                    {
                        "object": "embedding",
                        "index": 0,
                        "embedding": [-3, -116, 46, -127],
                        "scale": 0.0056101163,
                    },
                    {
                        "object": "embedding",
                        "index": 1,
                        "embedding": [104, 98, 0, -127],
                        "scale": 0.005240221,
                    },
                ],
                "model": "siglit-demo",
                "usage": {"prompt_tokens": 8, "total_tokens": 8},
            },
        ),
    ],
    "/embed_text": [
        Sample(
            "text",
            "One text",
            {"text": "a red circle", "dimensions": 4},
            {
                "embedding": [-0.017392876, -0.6519726, 0.25883326, -0.7124848],
                "dimension": 4,
                "model": "siglit-demo",
                "cached": False,
                "truncated": False,
            },
        ),
        Sample(
            "texts",
            "Several; the empty one is refused alone",
            {"texts": ["a red circle", "", "two blue squares"], "dimensions": 4},
            {
                "embeddings": [
                    [-0.017392855, -0.6519726, 0.25883332, -0.7124848],
                    None,
                    [0.54287326, 0.5122362, -0.0013221713, -0.6655081],
                ],
                "dimension": 4,
                "model": "siglit-demo",
                "cached": [False, False, False],
                "truncated": [False, False, False],
                "errors": [{"index": 1, "code": "text_empty", "message": "The text is empty."}],
            },
        ),
        Sample(
            "int8",
            "int8 with a scale",
            {"text": "a red circle", "dimensions": 4, "embedding_type": "int8"},
            {
                "embedding": [-3, -116, 46, -127],
                "dimension": 4,
                "model": "siglit-demo",
                "cached": False,
                "truncated": False,
                "scale": 0.0056101163,
            },
        ),
        Sample(
            "binary",
            "Bits, 16 of them in two bytes",
            {
                "texts": ["a red circle", "two blue squares"],
                "dimensions": 16,
                "embedding_type": "binary",
            },
            {
                "embeddings": [[43, 162], [200, 137]],
                "dimension": 16,
                "model": "siglit-demo",
                "cached": [False, False],
                "truncated": [False, False],
                "errors": [],
            },
        ),
    ],
    "/embed_image": [
        Sample(
            "image",
            "One image as base64 or data URI",
            {"image": RED_DOT, "dimensions": 4},
            {
                "embedding": [-0.80847543, -0.346396, -0.3761218, 0.29139262],
                "dimension": 4,
                "model": "siglit-demo",
                "cached": False,
                "truncated": False,
            },
        ),
        Sample(
            "images",
            "Several; the broken one is refused alone",
            {"images": [RED_DOT, "circle.png"], "dimensions": 4},
            {
                "embeddings": [[-0.80847543, -0.346396, -0.3761218, 0.29139262], None],
                "dimension": 4,
                "model": "siglit-demo",
                "cached": [False, False],
                "truncated": [False, False],
                "errors": [
                    {
                        "index": 1,
                        "code": "image_base64_invalid",
                        "message": ImageBase64Invalid.sentence,
                    }
                ],
            },
        ),
        Sample(
            "url",
            "By URL, where the server runs with --image-urls",
            {"url": "https://images.example.com/red-dot.png", "dimensions": 4},
            {
                "embedding": [-0.80847543, -0.346396, -0.3761218, 0.29139262],
                "dimension": 4,
                "model": "siglit-demo",
                "cached": False,
                "truncated": False,
            },
        ),
    ],
    "/score": [
        Sample(
            "score",
            "Two texts against an image",
            {"texts": ["a red circle", "a blue star"], "images": [RED_DOT]},
            {
                "cosine": [[0.1165413919104576], [-0.26838279134403936]],
                "probability": [[0.0017234382359905764], [4.965939071081795e-08]],
                "logit_scale": 27.164749962236105,
                "logit_bias": -9.52752685546875,
                "model": "siglit-demo",
            },
        ),
    ],
    "/classify": [
        Sample(
            "labels",
            "By labels alone",
            {"image": RED_DOT, "labels": ["red", "green", "blue"]},
            {
                "labels": [
                    {
                        "label": "red",
                        "probability": 0.42943286377995893,
                        "cosine": 0.34027044029593667,
                    },
                    {
                        "label": "green",
                        "probability": 3.656498607688076e-05,
                        "cosine": -0.025358452400738078,
                    },
                    {
                        "label": "blue",
                        "probability": 9.069011569177762e-06,
                        "cosine": -0.0766843558725982,
                    },
                ],
                "model": "siglit-demo",
            },
        ),
        Sample(
            "template",
            "With a template of yours",
            {"image": RED_DOT, "labels": ["circle", "star"], "template": "a red {label}"},
            {
                "labels": [
                    {
                        "label": "circle",
                        "probability": 0.0017234382359905764,
                        "cosine": 0.1165413919104576,
                    },
                    {
                        "label": "star",
                        "probability": 1.0208634738960177e-05,
                        "cosine": -0.07232680555977672,
                    },
                ],
                "model": "siglit-demo",
            },
        ),
    ],
}
FACTS: Final[Mapping[str, Any]] = {
    "/v1/models": {
        "object": "list",
        "data": [
            {"id": "siglit-demo", "object": "model", "created": 1795521221, "owned_by": "siglit"}
        ],
    },
    "/v1/models/{model}": {
        "id": "siglit-demo",
        "object": "model",
        "created": 1795521221,
        "owned_by": "siglit",
    },
    "/info": {
        "version": "0.1.0",
        "model": {
            "name": "siglit-demo",
            "revision": "fbdcfeec2712",
            "type": "siglip2",
            "naflex": True,
            "demo": True,
            "note": None,
            "dimension": 96,
            "dimensions_note": "SigLIP2 is not trained for shortened vectors: dimensions "
            "cuts and renormalises, at a cost in retrieval quality.",
            "precision": {"text": "float32", "image": "float32"},
            "compiled": False,
            "quality": None,
            "logit_scale": 27.165,
            "logit_bias": -9.528,
            "text_length": 64,
            "image_size": None,
            "patch_size": 16,
            "max_num_patches": 256,
            "weights_sha256": "fbdcfeec2712ec280cc8ea25f491ca80003c323940ca73a5be5881ca1edab35d",
            "fingerprint": {
                "text": "283561f55e6b7f1f07d99f2b15776e95f13a594740f04b3b506077237d547a97",
                "image": "b33a01918cf81badc8196e270290f68dacb86843ef6357afab30a683f1f5a997",
            },
        },
        "limits": {
            "items": 256,
            "text_chars": 8192,
            "image_bytes": 20971520,
            "image_pixels": 50000000,
            "image_formats": ["jpeg", "png", "webp", "gif", "bmp"],
            "body_bytes": 67108864,
            "timeout_seconds": 30.0,
        },
        "workers": [
            {
                "tower": "text",
                "worker": 0,
                "device": "cpu",
                "precision": "float32",
                "compiled": False,
                "arithmetic": "float32",
                "parameters": 259680,
                "threads": 1,
                "batch_budget": 4096,
            },
            {
                "tower": "image",
                "worker": 0,
                "device": "cpu",
                "precision": "float32",
                "compiled": False,
                "arithmetic": "float32",
                "parameters": 565056,
                "threads": 1,
                "batch_budget": 16384,
            },
        ],
        "devices": ["cpu"],
        "cache": {"tiers": ["memory", "redis (private)"]},
    },
    "/livez": {"status": "alive"},
    "/readyz": {"status": "ready"},
    "/metrics": (
        "# HELP siglit_items_in_flight Items under way\n"
        "# TYPE siglit_items_in_flight gauge\n"
        'siglit_items_in_flight{kind="text"} 0.0\n'
        'siglit_items_in_flight{kind="image"} 0.0\n'
    ),
}
