"""`/v1/multimodalembeddings`: the Voyage form."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from litapi.errors import ItemError
from litapi.http.forms.foreign import Embedded, ForeignRequest, listed, written
from litapi.http.forms.form import Numbers
from litapi.http.forms.options import Options
from litapi.http.forms.parts import Content, Part


class VoyageRequest(ForeignRequest):
    """Inputs of one part each."""

    inputs: Annotated[list[Content], Field(min_length=1, description="texts and images")]
    output_dimension: Numbers = None
    output_dtype: Literal["float", "int8", "uint8", "binary", "ubinary"] = Field(
        "float", description="type of the numbers, as `embedding_types` of /v2/embed has it"
    )
    output_encoding: Literal["base64"] | None = Field(
        None, description="vectors as lists of numbers, or as base64 of their bytes"
    )
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="the same, as the official client calls it"
    )

    def items(self) -> dict[str, Part | ItemError]:
        return listed("inputs", [one.part() for one in self.inputs])

    def wanted(self) -> dict[str, Options]:
        base64 = "base64" in (self.output_encoding, self.encoding_format)
        return {"data": written(self.output_dtype, self.output_dimension, base64=base64)}

    def answer(self, embedded: Embedded) -> dict[str, Any]:
        texts, patches = embedded.total("text"), embedded.total("image")
        return {
            "object": "list",
            "data": [
                {"object": "embedding", "embedding": row, "index": i}
                for i, row in enumerate(embedded.rows["data"])
            ],
            "model": embedded.model,
            "usage": {
                "text_tokens": texts,
                "image_pixels": patches * embedded.patch_size**2,
                "video_pixels": 0,
                "total_tokens": texts + patches,
            },
        }
