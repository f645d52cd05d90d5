"""The service's own forms, and OpenAI's: `/embed_text`, `/embed_image`, `/v1/embeddings`, `/score`
and `/classify`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from litapi.http.forms.form import Form, Model, Options, Patches, Several
from litapi.http.forms.parts import Input, Picture


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


class EmbeddingsRequest(Options):
    """OpenAI form. Strings that begin with `data:image/` are images."""

    input: Input = Field(description="one text, or a list of texts and images in any order")
    user: str | None = Field(None, description="taken from OpenAI clients, and not used")


class ScoreRequest(Form):
    """Every text against every image."""

    texts: Annotated[list[str], Field(min_length=1, description="the rows of the answer")]
    images: Annotated[
        list[Picture],
        Field(min_length=1, description="the columns: base64, data URI, URL or digest"),
    ]
    model: Model = None
    max_num_patches: Patches = None


class ClassifyRequest(Form):
    """One image against labels put into a template."""

    image: Picture = Field(description="base64, data URI, URL or digest")
    labels: Annotated[list[str], Field(min_length=1, description="what it might show")]
    template: str = Field(
        "this is a photo of {label}.", description="the caption of a label; must hold {label}"
    )
    templates: list[str] | None = Field(
        None,
        min_length=1,
        description="several captions of each label, instead of `template`: the label's vector is"
        " the mean of theirs, of length 1 again. Labels × templates count as items",
    )
    threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="the probability from which on a label holds; default: the calibration's, else"
        " 0.5",
    )
    model: Model = None
    max_num_patches: Patches = None
