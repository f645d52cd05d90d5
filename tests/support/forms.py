"""The form of each route that embeds, and the documented example of its body."""

from typing import Any

from litapi.http.forms.cohere import CohereRequest
from litapi.http.forms.embeddings import EmbeddingsRequest
from litapi.http.forms.form import Form
from litapi.http.forms.native import EmbedImageRequest, EmbedTextRequest
from litapi.http.forms.rerank import RerankRequest
from litapi.http.forms.scores import ClassifyRequest, ScoreRequest
from litapi.http.forms.tei import SimilarityRequest, TeiRequest
from litapi.http.forms.voyage import VoyageRequest

FORMS: dict[str, type[Form]] = {
    "/v1/embeddings": EmbeddingsRequest,
    "/embed_text": EmbedTextRequest,
    "/embed_image": EmbedImageRequest,
    "/score": ScoreRequest,
    "/classify": ClassifyRequest,
    "/v2/embed": CohereRequest,
    "/v1/multimodalembeddings": VoyageRequest,
    "/embed": TeiRequest,
    "/similarity": SimilarityRequest,
    **dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank"), RerankRequest),
}


def body_for(path: str) -> dict[str, Any]:
    """The documented example of a route."""
    extra: Any = FORMS[path].model_config["json_schema_extra"]
    example: dict[str, Any] = extra["examples"][0]
    return example
