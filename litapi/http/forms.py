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

RED_DOT = (
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


class DigestPart(Form):
    """An image by the sha256 of its encoded bytes; known once the server has embedded it."""

    type: Literal["image"] | None = None
    sha256: str = Field(description="64 hexadecimal digits")


PART_NAMES = ("text", "image_url", "image", "sha256")


def _part_tag(value: Any) -> str:
    if isinstance(value, dict):
        return next((name for name in PART_NAMES if name in value), "object")
    return "string"


class UnknownPart(Form):
    """Stands for an object of no known kind, so that its refusal says what is expected."""

    text: str = Field(description="or image, or image_url, or sha256")


Part = Annotated[
    Annotated[str, Tag("string")]
    | Annotated[TextPart, Tag("text")]
    | Annotated[ImagePart, Tag("image")]
    | Annotated[ImageUrlPart, Tag("image_url")]
    | Annotated[DigestPart, Tag("sha256")]
    | Annotated[UnknownPart, Tag("object")],
    Discriminator(_part_tag),
]


def _picture_tag(value: Any) -> str:
    return "sha256" if isinstance(value, dict) else "string"


Picture = Annotated[
    Annotated[str, Tag("string")] | Annotated[DigestPart, Tag("sha256")],
    Discriminator(_picture_tag),
]


def _input_tag(value: Any) -> str:
    return "list" if isinstance(value, list) else "string"


Input = Annotated[
    Annotated[str, Tag("string")] | Annotated[list[Part], Tag("list"), Field(min_length=1)],
    Discriminator(_input_tag),
]


class Options(Form):
    """What every embedding request may ask for beside its items."""

    model: str | None = Field(
        None, description="name of the served model, as OpenAI clients send it; another is a 404"
    )
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="vectors as lists of numbers, or as base64 of their bytes: shorter"
    )
    embedding_type: Literal["float32", "float16", "int8", "binary"] = Field(
        "float32",
        description="type of the numbers, made after any cut. float16: half the bytes. int8: a"
        " quarter; number × scale of the answer is the vector. binary: 1/32; a bit for each sign,"
        " eight a byte, the first one highest, for Hamming distance",
    )
    dimensions: int | None = Field(
        None,
        ge=1,
        description="keep the first N numbers and renormalise; SigLIP2 is not trained for it, so"
        " retrieval gets worse",
    )
    max_num_patches: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="patches an image may have: more see finer detail and cost more time; NaFlex"
        " checkpoints only",
    )


OPTION_FIELDS = frozenset(Options.model_fields)


class EmbeddingsRequest(Options):
    """OpenAI form. Strings that begin with `data:image/` are images."""

    input: Input = Field(description="one text, or a list of texts and images in any order")
    user: str | None = Field(None, description="taken from OpenAI clients, and not used")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"input": ["a red circle", {"image": RED_DOT}]}],
        }
    )


class EmbedTextRequest(Options):
    """One of `text` and `texts`."""

    text: str | None = Field(None, description="one text; lower-cased and cut at 64 tokens")
    texts: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="several texts"
    )

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"texts": ["a red circle", "two blue squares"]}]}
    )


class EmbedImageRequest(Options):
    """One of `image`, `images` (base64 or data URI), `url`, `urls`, `sha256` and `sha256s`."""

    image: str | None = Field(None, description="one image, base64 or data URI")
    images: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="several images"
    )
    url: str | None = Field(None, description="one image by URL, where the server fetches any")
    urls: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="several images by URL"
    )
    sha256: str | None = Field(
        None, description="one image by the sha256 of its encoded bytes, where the cache has it"
    )
    sha256s: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="several images by digest"
    )

    model_config = ConfigDict(json_schema_extra={"examples": [{"image": RED_DOT}]})


class ScoreRequest(Form):
    """Every text against every image."""

    texts: Annotated[list[str], Field(min_length=1, description="the rows of the answer")]
    images: Annotated[
        list[Picture],
        Field(min_length=1, description="the columns: base64, data URI, URL or digest"),
    ]
    model: str | None = Field(None, description="name of the served model; another is a 404")
    max_num_patches: int | None = Field(
        None, ge=1, le=4096, description="patches an image may have; NaFlex checkpoints only"
    )

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"texts": ["a red circle"], "images": [RED_DOT]}]}
    )


class ClassifyRequest(Form):
    """One image against labels put into a template."""

    image: Picture = Field(description="base64, data URI, URL or digest")
    labels: Annotated[list[str], Field(min_length=1, description="what it might show")]
    template: str = Field(
        "this is a photo of {label}.", description="the caption of a label; must hold {label}"
    )
    model: str | None = Field(None, description="name of the served model; another is a 404")
    max_num_patches: int | None = Field(
        None, ge=1, le=4096, description="patches an image may have; NaFlex checkpoints only"
    )

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"image": RED_DOT, "labels": ["red", "green", "blue"]}]}
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
    scale: float | None = Field(None, description="int8 only: embedding × scale is the vector")
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


# What cannot change a vector here, with the values that mean what this server does anyway.
INERT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("user", "input_type", "task", "metadata", "priority"), ()),
    "truncate": ("END", "true"),
    "truncation": ("true",),
    "truncation_direction": ("right",),
    "normalize": ("true",),
    "normalized": ("true",),
    "late_chunking": ("false",),
}
SHOWN = 64  # characters of a name that are said again
SENTENCES = 8  # of one refusal


def validate(form: type[ModelT], body: Any) -> ModelT:
    """`body` as `form`. What is written in another way than the form has it is read on demand.

    Raises:
        RequestInvalid: its sentence names every wrong field by its place in the body.
    """
    try:  # model_validate does no more than this, and takes half as long again
        valid: ModelT = form.__pydantic_validator__.validate_python(body)
        return valid
    except ValidationError:
        body = _plain(form, body)
    try:
        return form.__pydantic_validator__.validate_python(body)  # type: ignore[no-any-return]
    except ValidationError as error:
        if form is EmbeddingsRequest and _only_tokens(body):
            raise RequestInvalid(TOKENS_SENT, param="input") from None
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        told = faults[:SENTENCES]
        places = [_place(fault["loc"]) for fault in told]
        sentences = [f"{p}: {_reason(f, form)}" for p, f in zip(places, told, strict=True)]
        shown = "; ".join(sentences) + ("; …" if len(faults) > SENTENCES else "")
        raise RequestInvalid(shown, param=places[0]) from None


def named(name: str) -> str:
    """A name that a client gave, as it may come back in an answer: not all of a long one."""
    return name if len(name) <= SHOWN else name[:SHOWN] + "…"


def no_effect(name: str, value: Any) -> None:
    """Raises `RequestInvalid` where an inert field asks for what would change the vector."""
    agreed = INERT[name]
    said = str(value)[:SHOWN].lower() if isinstance(value, bool | str) else ""
    if agreed and value is not None and said not in map(str.lower, agreed):
        raise RequestInvalid(f"{name}: only {' or '.join(agreed)} is served here", param=name)


def _plain(form: type[BaseModel], body: Any) -> Any:
    """The same body without nulls that stand for defaults, inert fields, and 2.0 for 2."""
    if not isinstance(body, dict):
        return body
    plain = {}
    for name, value in body.items():
        field = form.model_fields.get(name)
        if field is None and name in INERT:
            no_effect(name, value)
        elif value is not None or field is None or field.is_required():
            plain[name] = _whole(value)
    if isinstance(plain.get("input"), list):
        plain["input"] = list(map(_plain_part, plain["input"]))
    return plain


def _plain_part(part: Any) -> Any:
    if isinstance(part, dict) and any(part.get(name) is not None for name in PART_NAMES):
        return {n: v for n, v in part.items() if v is not None or n not in PART_NAMES}
    return part


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


TOKENS_SENT = (
    "input: token ids cannot be embedded, for they come from another model's tokenizer; send the"
    " texts themselves (LangChain: check_embedding_ctx_length=False)"
)


def _only_tokens(body: Any) -> bool:
    """Whether `input` is in OpenAI's other form: ids of one text, or a list of them for each."""
    parts = body.get("input") if isinstance(body, dict) else None
    return isinstance(parts, list) and parts != [] and all(isinstance(p, int | list) for p in parts)


def _reason(fault: ErrorDetails, form: type[BaseModel]) -> str:
    if fault["type"] == "model_type":
        return "Input should be an object"
    if fault["type"] == "extra_forbidden" and len(fault["loc"]) == 1:
        return f"there is no such field here, only {', '.join(form.model_fields)}"
    return fault["msg"]


_TAGS = frozenset({"string", "list", "object", *PART_NAMES})


def _place(loc: tuple[int | str, ...]) -> str:
    """`('input', 'list', 3, 'text', 'text')` → `input[3].text`."""
    place = ""
    tag_next = False
    for step in loc:
        if isinstance(step, int):
            place += f"[{step}]"
            tag_next = True
        elif place == "":
            place, tag_next = named(step), step in ("input", "image")
        elif tag_next and step in _TAGS:
            tag_next = False
        elif not step.startswith(("str", "list[", "constrained")) and step != "ImageUrl":
            place += f".{named(step)}"
    return place or "body"
