"""What the bodies of requests have in common, and what may be asked for beside the items."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Model = Annotated[str | None, Field(description="name of the served model; another is a 404")]
Patches = Annotated[
    int | None,
    Field(ge=1, le=4096, description="patches an image may have; NaFlex checkpoints only"),
]
Numbers = Annotated[int | None, Field(ge=1, description="keep the first N numbers and renormalise")]
Several = Annotated[list[str], Field(min_length=1)]


class Form(BaseModel):
    """A request body: exact types, no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


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
