"""What the forms of other makers have in common: each is another way to ask what siglit is asked.

A form says which items it has, where in its body each stands and how vectors are to be written,
and makes its own answer of what was embedded. Nothing else differs: limits, errors, cache and the
vectors are those of `/v1/embeddings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from litapi.errors import ItemError
from litapi.http.forms.form import Form, Model, Patches
from litapi.http.forms.options import Options
from litapi.http.forms.parts import Part
from litapi.messages import Kind

Cut = Literal["NONE", "START", "END"]
TYPES = {"float": "float32", "ubinary": "binary", "binary": "signed_binary"}  # the rest as here


@dataclass(frozen=True, slots=True)
class Embedded:
    """What became of the items, in their order; none of them was refused."""

    id: str
    model: str
    kinds: Sequence[Kind]
    tokens: Sequence[int]  # of a text, or patches of an image
    patch_size: int
    rows: dict[str, list[Any]]  # the vectors in each of the ways that were wanted
    cosine: Sequence[float] = ()  # of the first item with each of the others, where it is compared
    relevance: Sequence[float] = ()  # the same from 0 to 1
    model_probability: Sequence[float] = ()  # where another one is served

    def total(self, kind: Kind) -> int:
        both = zip(self.kinds, self.tokens, strict=True)
        return sum(tokens for one, tokens in both if one == kind)


def _no_number(value: Any) -> Any:
    """0 equals false, and is another thing."""
    if type(value) in (int, float):
        raise PydanticCustomError("literal_error", "Input should be NONE, START, END or a boolean")
    return value


class Cutting(Form):
    """What is done to texts that are too long for the model."""

    truncate: Annotated[
        Literal["NONE", "START", "END", True, False] | None, BeforeValidator(_no_number)
    ] = Field(
        None,
        description="a text of more than 64 tokens is cut at its END (the default, or true), at its"
        " START, or refused (NONE, or false)",
    )
    truncation: bool | None = Field(None, description="false refuses a text of more than 64 tokens")
    truncation_direction: Literal["Left", "Right", "left", "right"] | None = Field(
        None, description="left keeps the last tokens of a text, as START does"
    )

    @property
    def cut(self) -> Cut:
        if self.truncation is False or self.truncate is False or self.truncate == "NONE":
            return "NONE"
        left = self.truncation_direction in ("Left", "left")
        return "START" if left or self.truncate == "START" else "END"


class ForeignRequest(Cutting):
    compares: ClassVar[bool] = False  # the first item with each of the others

    model: Model = None
    max_num_patches: Patches = None

    def items(self) -> dict[str, Part | ItemError]:
        """Each item by its place in the body, in order."""
        raise NotImplementedError

    def wanted(self) -> dict[str, Options]:
        """How vectors are written, under the names by which the answer takes them."""
        return {}

    def answer(self, embedded: Embedded) -> Any:
        """The content of the answer."""
        raise NotImplementedError


def listed(name: str, parts: Sequence[Part | ItemError]) -> dict[str, Part | ItemError]:
    return {f"{name}[{i}]": part for i, part in enumerate(parts)}


def written(type_: str, dimensions: int | None, *, base64: bool = False) -> Options:
    how: dict[str, Any] = {
        "embedding_type": TYPES.get(type_, type_),
        "encoding_format": "base64" if base64 else "float",
        "dimensions": dimensions,
    }
    return Options.model_construct(**how)
