"""`/embed_text` and `/embed_image`: the service's own form."""

from __future__ import annotations

from pydantic import Field

from litapi.http.forms.form import Several
from litapi.http.forms.options import Options


class EmbedTextRequest(Options):
    """One of `text` and `texts`."""

    text: str | None = Field(None, description="one text; lower-cased and cut at 64 tokens")
    texts: Several | None = Field(None, description="several texts")


class EmbedImageRequest(Options):
    """One of `image`, `images` (base64 or data URI), `url`, `urls`, `sha256` and `sha256s`."""

    image: str | None = Field(None, description="one image, base64 or data URI")
    images: Several | None = Field(None, description="several images")
    url: str | None = Field(None, description="one image by URL, where the server fetches any")
    urls: Several | None = Field(None, description="several images by URL")
    sha256: str | None = Field(
        None, description="one image by the sha256 of its encoded bytes, where the cache has it"
    )
    sha256s: Several | None = Field(None, description="several images by digest")
