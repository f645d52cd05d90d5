"""Client: `AsyncClient` for code that is not asynchronous, notebooks included.

The event loop runs in a thread of its own, so that calls may come from several threads at once and
from inside another loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Self, TypeVar, Unpack, overload

from litapi.client.asynchronous import AsyncClient, Manner
from litapi.client.embedded import TEMPLATE, Embedded, Options, Raise, Return, Scores, Vectors
from litapi.client.pictures import Picture

T = TypeVar("T")


class Client:
    """Asks one server; takes what `AsyncClient` takes. Close it, or use it in `with`."""

    def __init__(
        self,
        url: str = "http://localhost:8080",
        api_key: str | None = None,
        **manner: Unpack[Manner],
    ) -> None:
        self._client = AsyncClient(url, api_key, **manner)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and end the thread."""
        if self._loop.is_closed():
            return
        self._run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def info(self) -> dict[str, Any]:
        """The body of /info."""
        return self._run(self._client.info())

    def space(self) -> str | None:
        """As `AsyncClient.space`."""
        return self._run(self._client.space())

    @overload
    def embed_texts(
        self, texts: Iterable[str], *, on_error: Return, **options: Unpack[Options]
    ) -> Embedded: ...

    @overload
    def embed_texts(
        self, texts: Iterable[str], *, on_error: Raise = "raise", **options: Unpack[Options]
    ) -> Vectors: ...

    def embed_texts(
        self,
        texts: Iterable[str],
        *,
        on_error: Raise | Return = "raise",
        **options: Unpack[Options],
    ) -> Vectors | Embedded:
        """As `AsyncClient.embed_texts`."""
        found = self._run(self._client.embed_texts(texts, on_error="return", **options))
        return found.whole() if on_error == "raise" else found

    @overload
    def embed_images(
        self, images: Iterable[Picture], *, on_error: Return, **options: Unpack[Options]
    ) -> Embedded: ...

    @overload
    def embed_images(
        self, images: Iterable[Picture], *, on_error: Raise = "raise", **options: Unpack[Options]
    ) -> Vectors: ...

    def embed_images(
        self,
        images: Iterable[Picture],
        *,
        on_error: Raise | Return = "raise",
        **options: Unpack[Options],
    ) -> Vectors | Embedded:
        """As `AsyncClient.embed_images`."""
        found = self._run(self._client.embed_images(images, on_error="return", **options))
        return found.whole() if on_error == "raise" else found

    def score(self, texts: Iterable[str], images: Iterable[Picture]) -> Scores:
        """As `AsyncClient.score`."""
        return self._run(self._client.score(texts, images))

    def classify(
        self,
        images: Iterable[Picture],
        labels: Sequence[str],
        template: str | Sequence[str] = TEMPLATE,
        threshold: float | None = None,
    ) -> Scores:
        """As `AsyncClient.classify`."""
        return self._run(self._client.classify(images, labels, template, threshold))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C: what is under way shall end too
            future.cancel()
            raise
