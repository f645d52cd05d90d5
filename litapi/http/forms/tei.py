"""`/embed` and `/similarity`: the form of text-embeddings-inference."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from litapi.errors import ItemError
from litapi.http.forms.foreign import Cut, Cutting, Embedded, ForeignRequest, listed, written
from litapi.http.forms.form import Form, Numbers
from litapi.http.forms.options import Options
from litapi.http.forms.parts import Input, Part


class TeiRequest(ForeignRequest):
    """Strings that begin with `data:image/` are images."""

    inputs: Input = Field(description="one text, or a list of texts and images in any order")
    dimensions: Numbers = None
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="vectors as lists of numbers, or as base64 of their bytes"
    )

    def items(self) -> dict[str, Part | ItemError]:
        if isinstance(self.inputs, str):
            return {"inputs": self.inputs}
        return listed("inputs", self.inputs)

    def wanted(self) -> dict[str, Options]:
        base64 = self.encoding_format == "base64"
        return {"rows": written("float", self.dimensions, base64=base64)}

    def answer(self, embedded: Embedded) -> Any:
        return embedded.rows["rows"]


class Sentences(Form):
    """One item, and those that it is compared with."""

    source_sentence: Part = Field(description="a text or an image")
    sentences: Annotated[list[Part], Field(min_length=1, description="texts and images")]


class SimilarityRequest(ForeignRequest):
    """One item against several."""

    compares: ClassVar = True

    inputs: Sentences = Field(description="what is compared")
    parameters: Cutting | None = Field(None, description="the truncation fields may stand here too")

    @property
    def cut(self) -> Cut:
        return super().cut if self.parameters is None else self.parameters.cut

    def items(self) -> dict[str, Part | ItemError]:
        source = {"inputs.source_sentence": self.inputs.source_sentence}
        return source | listed("inputs.sentences", self.inputs.sentences)

    def answer(self, embedded: Embedded) -> Any:
        return embedded.cosine
