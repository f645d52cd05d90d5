"""Where vectors to be judged come from: a running server of any make, or this process."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np

from litapi.scoring import Array, Sigmoid

A_REQUEST = 32  # items: servers of other makes have low limits
PATIENCE = 300.0


class SourceError(Exception):
    """A server that gives no vectors; the text is one public line."""


@dataclass(frozen=True, slots=True)
class Source:
    """Unit vectors of texts and of encoded pictures, (n, dim), with what makes logits of them where
    the server says it. `name` is the checkpoint's, `about` the precision and the image backend in
    words."""

    name: str
    about: str
    texts: Callable[[Sequence[str]], Array]
    pictures: Callable[[Sequence[bytes]], Array]
    sigmoid: Sigmoid | None = None

    @classmethod
    def remote(cls, url: str, key: str | None = None, name: str = "") -> Self:
        """A server that answers `/v1/embeddings` with texts and data URIs in `input`. `name` is the
        checkpoint's where the server is not to be asked. Raises SourceError."""
        server = Server(url.rstrip("/"), key)
        model = name or server.model()
        facts = server.facts()
        precision, scale, bias = map(facts.get, ("precision", "logit_scale", "logit_bias"))
        return cls(
            name=model,
            about=f"precision {precision}" if precision else "of unknown precision",
            texts=lambda texts: server.embed(model, texts),
            pictures=lambda pictures: server.embed(model, pictures, _uri),
            sigmoid=None if scale is None or bias is None else Sigmoid(scale, bias),
        )


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    key: str | None

    def model(self) -> str:
        try:
            return str(self._json("GET", "/v1/models")["data"][0]["id"])
        except (LookupError, TypeError):
            raise SourceError(f"{self.url}/v1/models names no model; say --model") from None

    def facts(self) -> dict[str, Any]:
        """What `/info` says of the model; nothing on a server that has no such page."""
        try:
            said = self._json("GET", "/info")
        except SourceError:
            return {}
        model = said.get("model") if isinstance(said, dict) else None
        return model if isinstance(model, dict) else {}

    def embed(self, model: str, items: Sequence[Any], written: Callable[[Any], str] = str) -> Array:
        rows: list[list[float]] = []
        for start in range(0, len(items), A_REQUEST):
            some = [written(item) for item in items[start : start + A_REQUEST]]
            body = {"model": model, "input": some, "encoding_format": "float"}
            try:
                data = self._json("POST", "/v1/embeddings", json=body)["data"]
                rows += [one["embedding"] for one in sorted(data, key=lambda one: one["index"])]
            except (LookupError, TypeError):
                raise SourceError(f"{self.url}/v1/embeddings gave no embeddings") from None
        try:
            found = np.array(rows, np.float64)
        except (TypeError, ValueError):  # rows of unlike lengths, or of something else
            found = np.empty(0)
        if found.ndim != 2 or len(found) != len(items):
            raise SourceError(f"{self.url}/v1/embeddings gave no row of numbers for each input")
        unit: Array = found / np.linalg.norm(found, axis=-1, keepdims=True)
        return unit

    def _json(self, method: str, path: str, **more: Any) -> Any:
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        try:
            answer = httpx.request(
                method, self.url + path, headers=headers, timeout=PATIENCE, **more
            )
            answer.raise_for_status()
            return answer.json()
        except httpx.HTTPStatusError as error:
            said = f"{error.response.status_code} {error.response.text[:200]}"
            raise SourceError(f"{self.url}{path} answered {said}") from None
        except (httpx.HTTPError, ValueError) as error:
            raise SourceError(f"{self.url}{path}: {error}") from None


def _uri(picture: bytes | str) -> str:
    data = Path(picture).read_bytes() if isinstance(picture, str) else picture
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
