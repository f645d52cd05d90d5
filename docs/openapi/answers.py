"""The bodies of answers, as the OpenAPI document has them. The server writes them without a model;
the tests hold its answers against these.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, RootModel

from litapi.http.forms.foreign import Type

BESIDE = "the model's own, where a calibration gives the probability"


class ItemFault(BaseModel):
    """Why one item was refused."""

    index: int = Field(description="its place among all items of the request, from 0")
    code: str
    message: str
    param: str | None = Field(None, description="its place in the body, such as texts[1]")


class ErrorBody(BaseModel):
    """What went wrong: `code` is stable, `message` is for people."""

    message: str
    type: str
    code: str
    param: str | None = None
    items: list[ItemFault] | None = None


class ErrorResponse(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorBody


class Usage(BaseModel):
    """Tokens and patches that were embedded."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingObject(BaseModel):
    """One vector, in the order of the input."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    scale: float | None = Field(None, description="int8 only: embedding × scale is the vector")
    truncated: bool | None = Field(None, description="present and true where the text was cut")


class EmbeddingsResponse(BaseModel):
    """OpenAI form."""

    object: Literal["list"]
    data: list[EmbeddingObject]
    model: str
    usage: Usage


class EmbedResponse(BaseModel):
    """`embedding` for a single item, `embeddings` for a list; null stands for a refused item."""

    embedding: list[float] | str | None = None
    embeddings: list[list[float] | str | None] | None = None
    scale: float | None = Field(None, description="int8 only: embedding × scale is the vector")
    scales: list[float | None] | None = Field(None, description="the same for each of a list")
    dimension: int = Field(description="numbers of a vector; binary packs eight into a byte")
    model: str
    cached: bool | list[bool]
    truncated: bool | list[bool]
    errors: list[ItemFault] | None = None


class ScoreResponse(BaseModel):
    """Rows are texts, columns images; probability is sigmoid(scale · cosine + bias)."""

    cosine: list[list[float]]
    probability: list[list[float]]
    model_probability: list[list[float]] | None = Field(None, description=BESIDE)
    logit_scale: float
    logit_bias: float
    model: str


class Label(BaseModel):
    """One label with its score."""

    label: str
    probability: float
    model_probability: float | None = Field(None, description=BESIDE)
    cosine: float
    holds: bool = Field(description="whether the probability reaches the threshold")


class ClassifyResponse(BaseModel):
    """Labels, the most probable first. Each probability stands alone; they need not sum to 1."""

    labels: list[Label]
    threshold: float
    model: str


class CohereUnits(BaseModel):
    """What was embedded: tokens of texts, and images."""

    input_tokens: int
    images: int


class CohereMeta(BaseModel):
    """Beside the vectors."""

    api_version: dict[str, str]
    billed_units: CohereUnits


class CohereResponse(BaseModel):
    """Vectors by type, in the order of the items; `texts` as they came."""

    id: str
    embeddings: dict[Type, list[list[float] | list[int] | str]]
    texts: list[str] | None = None
    meta: CohereMeta


class VoyageEmbedding(BaseModel):
    """One vector, in the order of the inputs."""

    object: Literal["embedding"]
    embedding: list[float] | list[int] | str
    index: int


class VoyageUsage(BaseModel):
    """What was embedded; pixels as the model saw them, in whole patches."""

    text_tokens: int
    image_pixels: int
    video_pixels: int
    total_tokens: int


class VoyageResponse(BaseModel):
    """Voyage form."""

    object: Literal["list"]
    data: list[VoyageEmbedding]
    model: str
    usage: VoyageUsage


class TeiResponse(RootModel[list[list[float] | str]]):
    """A row for each input."""


class SimilarityResponse(RootModel[list[float]]):
    """The cosine of the source with each sentence."""


class RerankResult(BaseModel):
    """One document: its place among those of the request, and how well it fits, from 0 to 1."""

    index: int
    relevance_score: float
    model_probability: float | None = Field(
        None, description="the model's own, where a calibration is served and gives the score"
    )
    document: dict[str, str] | None = None


class VoyageRank(BaseModel):
    """The same in Voyage's words."""

    index: int
    relevance_score: float
    document: str | None = None


class TeiRank(BaseModel):
    """The same in those of text-embeddings-inference."""

    index: int
    score: float
    text: str | None = None


class Ranking(BaseModel):
    """The documents, best first; `data` for Voyage's request."""

    id: str
    model: str
    results: list[RerankResult]
    usage: Usage
    object: Literal["list"] | None = None
    data: list[VoyageRank] | None = None


class RerankResponse(RootModel[Ranking | list[TeiRank]]):
    """A list for `texts`."""


class ModelCard(BaseModel):
    """OpenAI form of a served model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(BaseModel):
    """OpenAI form of the list of models."""

    object: Literal["list"]
    data: list[ModelCard]
