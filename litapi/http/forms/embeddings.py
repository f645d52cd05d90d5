"""`/v1/embeddings`: the OpenAI form."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from litapi.http.forms.form import RED_DOT
from litapi.http.forms.options import Options
from litapi.http.forms.parts import Input


class EmbeddingsRequest(Options):
    """OpenAI form. Strings that begin with `data:image/` are images."""

    input: Input = Field(description="one text, or a list of texts and images in any order")
    user: str | None = Field(None, description="taken from OpenAI clients, and not used")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"input": ["a red circle", {"image": RED_DOT}]}],
        }
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
