"""The bodies of the interface: what a request may hold, what an answer holds.

Requests forbid unknown fields, so a misspelt option is refused by its name instead of ignored.
These models are also the OpenAPI document behind /docs. Answers with vectors are written by
`answer.py` without going through a model; the models here describe them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError
from pydantic_core import ErrorDetails

from litapi.errors import RequestInvalid

ModelT = TypeVar("ModelT", bound=BaseModel)

_RED_DOT = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4"
    "//8/w38GIAXDIBKE0DHxgljNBAAO9TXL0Y4OHwAAAABJRU5ErkJggg=="
)


class Form(BaseModel):
    """A request body: exact types, no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


class TextPart(Form):
    """A text, plain or as an OpenAI content part."""

    type: Literal["text"] | None = None
    text: str


class ImagePart(Form):
    """An image as base64, data URI or URL."""

    type: Literal["image"] | None = None
    image: str


class ImageUrl(Form):
    """The inner object of an OpenAI image part."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ImageUrlPart(Form):
    """An image as an OpenAI content part."""

    type: Literal["image_url"] | None = None
    image_url: str | ImageUrl


def _part_tag(value: Any) -> str:
    if isinstance(value, dict):
        kind = next((key for key in ("text", "image_url", "image") if key in value), "object")
        return {"text": "text", "image": "image", "image_url": "image_url"}.get(kind, "object")
    return "string"


class UnknownPart(Form):
    """Stands for an object of no known kind, so that its refusal says what is expected."""

    text: str = Field(description="or image, or image_url")


Part = Annotated[
    Annotated[str, Tag("string")]
    | Annotated[TextPart, Tag("text")]
    | Annotated[ImagePart, Tag("image")]
    | Annotated[ImageUrlPart, Tag("image_url")]
    | Annotated[UnknownPart, Tag("object")],
    Discriminator(_part_tag),
]


def _input_tag(value: Any) -> str:
    return "list" if isinstance(value, list) else "string"


Input = Annotated[
    Annotated[str, Tag("string")] | Annotated[list[Part], Tag("list"), Field(min_length=1)],
    Discriminator(_input_tag),
]


class Options(Form):
    """What every embedding request may ask for beside its items."""

    model: str | None = Field(None, description="must be the served model where given")
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="base64: little-endian float32"
    )
    dimensions: int | None = Field(
        None,
        ge=1,
        description="cut to the first N numbers and renormalise; SigLIP2 is not trained for it",
    )
    max_num_patches: int | None = Field(
        None, ge=1, le=4096, description="patches of each image; NaFlex checkpoints only"
    )


OPTION_FIELDS = frozenset(Options.model_fields)


class EmbeddingsRequest(Options):
    """OpenAI form. Strings that begin with `data:image/` are images."""

    input: Input
    user: str | None = None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"input": ["a red circle", {"image": _RED_DOT}]}],
        }
    )


class EmbedTextRequest(Options):
    """One of `text` and `texts`."""

    text: str | None = None
    texts: Annotated[list[str], Field(min_length=1)] | None = None

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"texts": ["a red circle", "two blue squares"]}]}
    )


class EmbedImageRequest(Options):
    """One of `image` and `images` (base64 or data URI), `url` and `urls`."""

    image: str | None = None
    images: Annotated[list[str], Field(min_length=1)] | None = None
    url: str | None = None
    urls: Annotated[list[str], Field(min_length=1)] | None = None

    model_config = ConfigDict(json_schema_extra={"examples": [{"image": _RED_DOT}]})


class ScoreRequest(Form):
    """Every text against every image."""

    texts: Annotated[list[str], Field(min_length=1)]
    images: Annotated[list[str], Field(min_length=1, description="base64, data URI or URL")]
    model: str | None = None
    max_num_patches: int | None = Field(None, ge=1, le=4096)

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"texts": ["a red circle"], "images": [_RED_DOT]}]}
    )


class ClassifyRequest(Form):
    """One image against labels put into a template."""

    image: str = Field(description="base64, data URI or URL")
    labels: Annotated[list[str], Field(min_length=1)]
    template: str = Field(
        "this is a photo of {label}.", description="the caption of a label; must hold {label}"
    )
    model: str | None = None
    max_num_patches: int | None = Field(None, ge=1, le=4096)

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"image": _RED_DOT, "labels": ["red", "green", "blue"]}]}
    )


class Usage(BaseModel):
    """Tokens and patches that were embedded."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingObject(BaseModel):
    """One vector, in the order of the input."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    truncated: bool | None = Field(None, description="present and true where the text was cut")


class EmbeddingsResponse(BaseModel):
    """OpenAI form."""

    object: Literal["list"]
    data: list[EmbeddingObject]
    model: str
    usage: Usage


class ItemFault(BaseModel):
    """Why one item was refused."""

    index: int = Field(description="its place among all items of the request, from 0")
    code: str
    message: str
    param: str | None = Field(None, description="its place in the body, such as texts[1]")


class EmbedResponse(BaseModel):
    """`embedding` for a single item, `embeddings` for a list; null stands for a refused item."""

    embedding: list[float] | str | None = None
    embeddings: list[list[float] | str | None] | None = None
    dimension: int
    model: str
    cached: bool | list[bool]
    truncated: bool | list[bool]
    errors: list[ItemFault] | None = None


class ScoreResponse(BaseModel):
    """Rows are texts, columns images; probability is sigmoid(scale · cosine + bias)."""

    cosine: list[list[float]]
    probability: list[list[float]]
    logit_scale: float
    logit_bias: float
    model: str


class Label(BaseModel):
    """One label with its score."""

    label: str
    probability: float
    cosine: float


class ClassifyResponse(BaseModel):
    """Labels, the most probable first. Each probability stands alone; they need not sum to 1."""

    labels: list[Label]
    model: str


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


def validate(form: type[ModelT], body: Any) -> ModelT:
    """`body` as `form`.

    Raises:
        RequestInvalid: its sentence names every wrong field by its place in the body.
    """
    try:
        return form.model_validate(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        places = [_place(fault["loc"]) for fault in faults]
        sentences = [f"{p}: {_reason(f)}" for p, f in zip(places, faults, strict=True)]
        shown = "; ".join(sentences[:8]) + ("; …" if len(sentences) > 8 else "")
        raise RequestInvalid(shown, param=places[0]) from None


def _reason(fault: ErrorDetails) -> str:
    return "Input should be an object" if fault["type"] == "model_type" else fault["msg"]


_TAGS = frozenset({"string", "list", "text", "image", "image_url", "object"})


def _place(loc: tuple[int | str, ...]) -> str:
    """`('input', 'list', 3, 'text', 'text')` → `input[3].text`."""
    place = ""
    tag_next = False
    for step in loc:
        if isinstance(step, int):
            place += f"[{step}]"
            tag_next = True
        elif place == "":
            place, tag_next = step, step == "input"
        elif tag_next and step in _TAGS:
            tag_next = False
        elif not step.startswith(("str", "list[", "constrained")) and step != "ImageUrl":
            place += f".{step}"
    return place or "body"
