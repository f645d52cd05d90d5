"""`/rerank`, `/v1/rerank`, `/v2/rerank`: the form that Cohere, Jina, vLLM and LiteLLM share.

Voyage and text-embeddings-inference ask the same routes in other words, and are answered in theirs:
`top_k` or `truncation` is Voyage's, `texts` the latter's.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from litapi.errors import ItemError, RequestInvalid
from litapi.http.forms.foreign import Embedded, ForeignRequest, listed
from litapi.http.forms.parts import Part, TextPart


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
