"""What gives vectors: a running server, siglit's or of another make, or this process."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
import numpy as np

from litapi.client import Client, Embedded
from litapi.messages import Kind
from litapi.scoring import Array, Sigmoid

if TYPE_CHECKING:  # with all that serves, which a client does not need
    from litapi.engine import Engine

A_REQUEST = 32  # items: servers of other makes have low limits
PATIENCE = 300.0
Ask = Callable[[Kind, Sequence[Any]], Embedded]  # of texts, or of pictures as paths or bytes


class SourceError(Exception):
    """A server that gives no vectors; the text is one public line."""


@dataclass(frozen=True, slots=True)
class Source:
    """Embeds texts and pictures. `name` is the checkpoint's, `about` tells its precision in words;
    `sigmoid` is the model's own. It and `space` are None where a server does not say them."""

    name: str
    about: str
    ask: Ask
    sigmoid: Sigmoid | None = None
    space: str | None = None
    url: str = ""

    def texts(self, texts: Sequence[str]) -> Array:
        """(n, dim) unit vectors. Raises ClientError, SourceError."""
        return self.ask("text", texts).whole()

    def pictures(self, pictures: Sequence[bytes]) -> Array:
        """As `texts`."""
        return self.ask("image", pictures).whole()

    @classmethod
    def served(cls, url: str, client: Client) -> Self:
        """A server of siglit's own make. Raises ClientError."""
        model = client.info()["model"]
        precision = ", ".join(f"{kind} {name}" for kind, name in model["precision"].items())
        patches = f", {model['max_num_patches']} patches" if model["naflex"] else ""
        return cls(
            name=model["name"],
            about=precision + patches,
            ask=either(client.embed_texts, client.embed_images),
            sigmoid=Sigmoid(model["logit_scale"], model["logit_bias"]),
            space=model.get("space"),
            url=url,
        )

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
            ask=lambda kind, items: server.embed(model, kind, items),
            sigmoid=None if scale is None or bias is None else Sigmoid(scale, bias),
            url=url,
        )

    @classmethod
    def of(cls, engine: Engine) -> Self:
        """An engine in this process."""
        model, ask = engine.checkpoint, either(engine.texts, engine.images)
        own = Sigmoid(model.logit_scale, model.logit_bias)
        return cls(model.name, "in this process", ask, own, model.space)


def either(texts: Any, images: Any) -> Ask:
    """The methods of a client or an engine as one; a refused item is a value."""
    ways: dict[Kind, Any] = {"text": texts, "image": images}
    return lambda kind, items: ways[kind](items, on_error="return")


def plain(rows: Array) -> Embedded:
    """Vectors of which nobody knows more."""
    return Embedded(rows.astype(np.float32), np.zeros(len(rows), np.bool_))


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
            return dict(self._json("GET", "/info")["model"])
        except (SourceError, LookupError, TypeError, ValueError):
            return {}

    def embed(self, model: str, kind: Kind, items: Sequence[Any]) -> Embedded:
        rows: list[list[float]] = []
        for start in range(0, len(items), A_REQUEST):
            some = items[start : start + A_REQUEST]
            some = list(some) if kind == "text" else [_uri(one) for one in some]
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
        return plain(found / np.linalg.norm(found, axis=-1, keepdims=True))

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
