"""Client: `AsyncClient` for code that is not asynchronous, notebooks included.

The event loop runs in a thread of its own, so that calls may come from several threads at once and
from inside another loop.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, Unpack

from litapi.client.asynchronous import AsyncClient, Manner

P = ParamSpec("P")
T = TypeVar("T")


def _waiting(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Client, P], T]:
    """The same method, with all its overloads, that returns when it is done."""

    @functools.wraps(method)
    def call(client: Client, /, *args: P.args, **named: P.kwargs) -> T:
        return client._run(method(client._client, *args, **named))

    return call


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

    info = _waiting(AsyncClient.info)
    space = _waiting(AsyncClient.space)
    embed_texts = _waiting(AsyncClient.embed_texts)
    embed_images = _waiting(AsyncClient.embed_images)
    score = _waiting(AsyncClient.score)
    classify = _waiting(AsyncClient.classify)

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

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C: what is under way shall end too
            future.cancel()
            raise
