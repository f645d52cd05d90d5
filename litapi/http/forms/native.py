"""`/embed_text` and `/embed_image`: the service's own form."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from litapi.http.forms.form import RED_DOT
from litapi.http.forms.options import Options


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
