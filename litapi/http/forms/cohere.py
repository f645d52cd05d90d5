"""`/v2/embed`: the Cohere form."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from litapi.errors import ItemError, RequestInvalid
from litapi.http.forms.foreign import Embedded, ForeignRequest, listed, written
from litapi.http.forms.form import Numbers, Several
from litapi.http.forms.options import Options
from litapi.http.forms.parts import Content, ImagePart, Part, TextPart

Type = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]


class CohereRequest(ForeignRequest):
    """One of `texts`, `images` and `inputs`."""

    texts: Several | None = Field(None, description="several texts")
    images: Several | None = Field(None, description="several images: data URI, base64 or URL")
    inputs: Annotated[list[Content], Field(min_length=1)] | None = Field(
        None, description="texts and images in any order"
    )
    embedding_types: Annotated[list[Type], Field(min_length=1)] = Field(
        ["float"],
        description="types of the numbers. int8 and uint8 (128 more) are scaled for each vector, to"
        " be compared by cosine; ubinary is a bit for each sign, binary 128 less; base64 is of"
        " float32",
    )
    output_dimension: Numbers = None
    max_tokens: int | None = Field(None, ge=64, description="more than 64 are never read")

    def items(self) -> dict[str, Part | ItemError]:
        given: dict[str, list[Part | ItemError]] = {
            "texts": [TextPart.model_construct(text=text) for text in self.texts or ()],
            "images": [ImagePart.model_construct(image=image) for image in self.images or ()],
            "inputs": [one.part() for one in self.inputs or ()],
        }
        named = [name for name in given if given[name]]
        if len(named) != 1:
            raise RequestInvalid(f"exactly one of {', '.join(given)} is expected")
        return listed(named[0], given[named[0]])

    def wanted(self) -> dict[str, Options]:
        return {
            type_: written("float", self.output_dimension, base64=True)
            if type_ == "base64"
            else written(type_, self.output_dimension)
            for type_ in self.embedding_types
        }

    def answer(self, embedded: Embedded) -> dict[str, Any]:
        units = {"input_tokens": embedded.total("text"), "images": embedded.kinds.count("image")}
        return {
            "id": embedded.id,
            "embeddings": embedded.rows,
            **({"texts": self.texts} if self.texts else {}),
            "meta": {"api_version": {"version": "2"}, "billed_units": units},
        }
