"""The forms of other makers: each is another way to ask what siglit is asked.

A form says which items it has, where in its body each stands and how vectors are to be written,
and makes its own answer of what was embedded. Nothing else differs: limits, errors, cache and the
vectors are those of `/v1/embeddings`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from litapi.errors import ItemError, RequestInvalid
from litapi.http.forms.form import Form, Model, Numbers, Options, Patches, Several
from litapi.http.forms.parts import Content, ImagePart, Input, Part, TextPart
from litapi.messages import Kind

Cut = Literal["NONE", "START", "END"]
Type = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]
TYPES = {  # the rest as here
    "float": "float32", "base64": "float32", "ubinary": "binary", "binary": "signed_binary",
}  # fmt: skip


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


def written(type_: str, dimensions: int | None, *, base64: bool) -> Options:
    how: dict[str, Any] = {
        "embedding_type": TYPES.get(type_, type_),
        "encoding_format": "base64" if base64 else "float",
        "dimensions": dimensions,
    }
    return Options.model_construct(**how)


# `/v2/embed`: Cohere.


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
            one: written(one, self.output_dimension, base64=one == "base64")
            for one in self.embedding_types
        }

    def answer(self, embedded: Embedded) -> dict[str, Any]:
        units = {"input_tokens": embedded.total("text"), "images": embedded.kinds.count("image")}
        return {
            "id": embedded.id,
            "embeddings": embedded.rows,
            **({"texts": self.texts} if self.texts else {}),
            "meta": {"api_version": {"version": "2"}, "billed_units": units},
        }


# `/v1/multimodalembeddings`: Voyage.


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


# `/embed` and `/similarity`: text-embeddings-inference.


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


# `/rerank`, `/v1/rerank`, `/v2/rerank`: the form that Cohere, Jina, vLLM and LiteLLM share. Voyage
# and text-embeddings-inference ask the same routes in other words, and are answered in theirs:
# `top_k` or `truncation` is Voyage's, `texts` the latter's.


class RerankRequest(ForeignRequest):
    """A text or an image, and the texts and images that are ranked for it."""

    compares: ClassVar = True

    query: Part = Field(description="a text or an image")
    documents: Annotated[list[Part], Field(min_length=1)] | None = Field(
        None, description="texts and images"
    )
    texts: Annotated[list[Part], Field(min_length=1)] | None = Field(
        None, description="the same, answered as text-embeddings-inference does"
    )
    top_n: int | None = Field(None, ge=1, description="only the best N; all of them by default")
    top_k: int | None = Field(None, ge=1, description="the same; `data` stands beside `results`")
    return_documents: bool = Field(
        False, description="texts come back beside their scores; images never do"
    )
    return_text: bool = Field(False, description="the same")
    raw_scores: bool = Field(False, description="of `texts`: the score is the cosine")
    max_tokens_per_doc: int | None = Field(None, ge=64, description="more than 64 are never read")

    def items(self) -> dict[str, Part | ItemError]:
        if (self.documents is None) == (self.texts is None):
            raise RequestInvalid("either documents or texts are expected", param="documents")
        return {"query": self.query} | listed("texts" if self.texts else "documents", self._ranked)

    def answer(self, embedded: Embedded) -> Any:
        """The best first; of equal ones the nearer, and then the earlier."""
        best = np.lexsort((-np.asarray(embedded.cosine), -np.asarray(embedded.relevance)))
        order = best[: self.top_n or self.top_k].tolist()
        if self.texts:
            scores = embedded.cosine if self.raw_scores else embedded.relevance
            return [
                {"index": i, "score": scores[i], **self._text("text", i, embedded)} for i in order
            ]
        answer = {
            "id": embedded.id,
            "model": embedded.model,
            "results": [self._result(i, embedded) for i in order],
            "usage": {"prompt_tokens": sum(embedded.tokens), "total_tokens": sum(embedded.tokens)},
        }
        if self.top_k is not None or self.truncation is not None:
            scores = embedded.relevance
            rows = [(i, self._text("document", i, embedded)) for i in order]
            data = [{"index": i, "relevance_score": scores[i], **text} for i, text in rows]
            answer |= {"object": "list", "data": data}
        return answer

    def _result(self, index: int, embedded: Embedded) -> dict[str, Any]:
        result: dict[str, Any] = {"index": index, "relevance_score": embedded.relevance[index]}
        if embedded.model_probability and embedded.kinds[0] != embedded.kinds[1 + index]:
            result["model_probability"] = embedded.model_probability[index]
        text = self._text("text", index, embedded)
        return result | ({"document": text} if text else {})

    @property
    def _ranked(self) -> list[Part]:
        return self.documents or self.texts or []

    def _text(self, name: str, index: int, embedded: Embedded) -> dict[str, Any]:
        """A text under that name, where it is asked for; nothing of an image."""
        if embedded.kinds[1 + index] == "image" or not (self.return_documents or self.return_text):
            return {}
        document = self._ranked[index]
        return {name: document.text if isinstance(document, TextPart) else document}


FOREIGN: Mapping[str, type[ForeignRequest]] = {
    "/v2/embed": CohereRequest,
    "/v1/multimodalembeddings": VoyageRequest,
    "/embed": TeiRequest,
    "/similarity": SimilarityRequest,
    **dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank"), RerankRequest),
}
