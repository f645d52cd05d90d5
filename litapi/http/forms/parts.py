"""One item of a request: a text or an image, in each of the ways it may be written."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from litapi.errors import ItemError, ItemOfSeveralParts
from litapi.http.forms.form import Form


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


class Base64Part(Form):
    """An image as a Voyage content part."""

    type: Literal["image_base64"] | None = None
    image_base64: str


class DigestPart(Form):
    """An image by the sha256 of its encoded bytes; known once the server has embedded it."""

    type: Literal["image"] | None = None
    sha256: str = Field(description="64 hexadecimal digits")


PART_NAMES = ("text", "image_url", "image", "image_base64", "sha256")


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
    | Annotated[Base64Part, Tag("image_base64")]
    | Annotated[DigestPart, Tag("sha256")]
    | Annotated[UnknownPart, Tag("object")],
    Discriminator(_part_tag),
]


Picture = Annotated[
    Annotated[str, Tag("string")] | Annotated[DigestPart, Tag("sha256")],
    Discriminator(lambda value: "sha256" if isinstance(value, dict) else "string"),
]


Input = Annotated[
    Annotated[str, Tag("string")] | Annotated[list[Part], Tag("list"), Field(min_length=1)],
    Discriminator(lambda value: "list" if isinstance(value, list) else "string"),
]


class Content(Form):
    """An input as a list of parts, of which SigLIP2 takes one."""

    content: Annotated[list[Part], Field(min_length=1, description="one text or one image")]

    def part(self) -> Part | ItemError:
        """The one part, or the refusal of several."""
        return self.content[0] if len(self.content) == 1 else ItemOfSeveralParts()
