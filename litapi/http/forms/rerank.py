"""`/rerank`, `/v1/rerank`, `/v2/rerank`: the form that Cohere, Jina, vLLM and LiteLLM share."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from litapi.errors import ItemError
from litapi.http.forms.foreign import Embedded, ForeignRequest, listed
from litapi.http.forms.parts import Part, TextPart


class RerankRequest(ForeignRequest):
    """A text or an image, and the texts and images that are ranked for it."""

    compares: ClassVar = True

    query: Part = Field(description="a text or an image")
    documents: Annotated[list[Part], Field(min_length=1, description="texts and images")]
    top_n: int | None = Field(None, ge=1, description="only the best N; all of them by default")
    return_documents: bool = Field(
        False, description="texts come back beside their scores; images never do"
    )
    max_tokens_per_doc: int | None = Field(None, ge=64, description="more than 64 are never read")

    def items(self) -> dict[str, Part | ItemError]:
        return {"query": self.query} | listed("documents", self.documents)

    def answer(self, embedded: Embedded) -> dict[str, Any]:
        """The best first; of equal ones the nearer, and then the earlier."""
        order = np.lexsort((-np.asarray(embedded.cosine), -np.asarray(embedded.relevance)))
        return {
            "id": embedded.id,
            "model": embedded.model,
            "results": [self._result(i, embedded) for i in order[: self.top_n].tolist()],
            "usage": {"prompt_tokens": sum(embedded.tokens), "total_tokens": sum(embedded.tokens)},
        }

    def _result(self, index: int, embedded: Embedded) -> dict[str, Any]:
        result: dict[str, Any] = {"index": index, "relevance_score": embedded.relevance[index]}
        if embedded.model_probability and embedded.kinds[0] != embedded.kinds[1 + index]:
            result["model_probability"] = embedded.model_probability[index]
        if self.return_documents and embedded.kinds[1 + index] == "text":
            document = self.documents[index]
            text = document.text if isinstance(document, TextPart) else document
            result["document"] = {"text": text}
        return result
