"""The HTTP side: one ASGI application in each HTTP process.

It stands before FastAPI, not inside it: the routes that embed are found in a dictionary, so a
cache hit pays for no framework. FastAPI describes the same routes for /docs and answers what is
left. Every exception becomes an error of the shared form here, and its inner text stays in the log.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from cache import VectorCache
from litapi.answer import Answer
from litapi.dispatcher import Dispatcher
from litapi.docs import describe
from litapi.embedder import Embedder
from litapi.errors import MethodNotAllowed, NotReady, RouteUnknown, ServiceError
from litapi.incoming import ClientGone, Incoming, Receive, Scope, Send
from litapi.messages import KINDS, Job, Kind, Reply
from litapi.metrics import Metrics, exposition
from litapi.reader import Reader
from litapi.routes import Facts, ItemsRefused, Route, Routes
from litapi.service import Service

log = logging.getLogger("siglit.front")

Pages = Callable[[Scope, Receive, Send], Awaitable[None]]
DOCS = ("/docs", "/redoc", "/openapi.json", "/static-offline-docs")
PROBE_SECONDS = 5.0


class Front:
    """The ASGI application. `response_queue_id` is LitServe's name for which process this is."""

    response_queue_id: int | None = None

    def __init__(
        self,
        service: Service,
        dispatcher: Callable[[int], Dispatcher],
        cache: Callable[[Metrics], VectorCache],
    ) -> None:
        self._service = service
        self._make_dispatcher = dispatcher
        self._make_cache = cache
        self._limit = service.settings.max_body_bytes
        self._pages: Pages = describe()
        self._table: dict[tuple[str, str], Route] = {}
        self._paths: frozenset[str] = frozenset()
        self._in_flight = 0
        self._ready = False

    # -- life ----------------------------------------------------------------------------------

    async def _open(self, stack: AsyncExitStack) -> None:
        self._metrics = Metrics()
        self._metrics.tiers("+".join(self._service.cache_tiers))
        self._dispatcher = self._make_dispatcher(self.response_queue_id or 0)
        self._dispatcher.start()
        cache = self._make_cache(self._metrics)
        await cache.start()
        stack.push_async_callback(cache.close)
        if cache.store is not None and self.response_queue_id == 0:
            for sentence in await cache.store.inspect():
                log.warning("%s", sentence)
        self._lay_table(cache)
        await asyncio.gather(*(self._probe(kind) for kind in KINDS))
        self._ready = True

    def _lay_table(self, cache: VectorCache) -> None:
        service = self._service
        embedder = Embedder(service.fingerprints(), cache, self._submit, service.settings.timeout)
        routes = Routes(service, Reader(service.settings), embedder)
        self._facts = Facts(service)
        health: dict[tuple[str, str], Route] = {
            ("GET", "/livez"): _alive,
            ("GET", "/readyz"): self._readiness,
            ("GET", "/metrics"): _metrics,
        }
        self._table = {**routes.table(), **self._facts.table(), **health}
        self._paths = frozenset(path for _, path in self._table)

    async def _submit(self, kind: Kind, job: Job) -> Reply:
        reply = await self._dispatcher.submit(kind, job)
        self._metrics.stages(kind, reply.queue_seconds, reply.decode_seconds, reply.infer_seconds)
        return reply

    async def _probe(self, kind: Kind) -> None:
        await self._dispatcher.submit(kind, Job([], deadline=time.monotonic() + PROBE_SECONDS))

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        stack = AsyncExitStack()
        await receive()
        try:
            await self._open(stack)
        except Exception:
            log.exception("the HTTP process could not start")
            await send({"type": "lifespan.startup.failed", "message": "see the log"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._ready = False
        await stack.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    # -- requests ------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        if scope["path"].startswith(DOCS):
            await self._pages(scope, receive, send)
            return
        incoming = Incoming(scope, receive, self._limit)
        self._in_flight += 1
        try:
            answer = await self._answer(incoming)
            await _send(answer, incoming, send)
        except ClientGone:
            return
        finally:
            self._in_flight -= 1
        label = incoming.path if incoming.path in self._paths else "other"
        self._metrics.answered(label, answer.status, time.perf_counter() - began)

    async def _answer(self, incoming: Incoming) -> Answer:
        try:
            return await self._route(incoming)(incoming)
        except ItemsRefused as refused:
            return Answer.error(refused.error, refused.items)
        except ServiceError as error:
            return Answer.error(error)
        except ClientGone:
            raise
        except Exception:
            log.exception("a request failed")
            return Answer.error(ServiceError())

    def _route(self, incoming: Incoming) -> Route:
        method, path = incoming.method, incoming.path
        route = self._table.get(("GET" if method == "HEAD" else method, path))
        if route is not None:
            return route
        if path in self._paths:
            raise MethodNotAllowed
        if path.startswith("/v1/models/") and method in ("GET", "HEAD"):
            return self._facts.model
        raise RouteUnknown

    async def _readiness(self, incoming: Incoming) -> Answer:
        del incoming
        if not self._ready:
            raise NotReady
        return Answer.json({"status": "ready"})


async def _alive(incoming: Incoming) -> Answer:
    del incoming
    return Answer.json({"status": "alive"})


async def _metrics(incoming: Incoming) -> Answer:
    del incoming
    text = await asyncio.to_thread(exposition)
    return Answer(text, headers=[(b"content-type", b"text/plain; version=1.0.0; charset=utf-8")])


async def _send(answer: Answer, incoming: Incoming, send: Send) -> None:
    request_id = incoming.headers.get(b"x-request-id") or os.urandom(8).hex().encode()
    headers = [
        *answer.headers,
        (b"content-length", b"%d" % len(answer.body)),
        (b"x-request-id", request_id[:128]),
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    body: Any = b"" if incoming.method == "HEAD" else answer.body
    await send({"type": "http.response.body", "body": body})
