"""`/v1/embeddings`: the OpenAI form."""

from __future__ import annotations

from pydantic import Field

from litapi.http.forms.options import Options
from litapi.http.forms.parts import Input


class EmbeddingsRequest(Options):
    """OpenAI form. Strings that begin with `data:image/` are images."""

    input: Input = Field(description="one text, or a list of texts and images in any order")
    user: str | None = Field(None, description="taken from OpenAI clients, and not used")
