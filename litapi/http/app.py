"""The HTTP side: one ASGI application in each HTTP process.

Routes that embed are looked up in a dictionary, so a cache hit does not pay for a framework.
FastAPI describes the same routes and serves the pages of /docs. Every exception becomes an error of
the shared form here; its own text goes to the log only.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Protocol

from cache import VectorCache
from litapi.errors import MethodNotAllowed, ModelUnknown, NotReady, RouteUnknown, ServiceError
from litapi.http.access import Access
from litapi.http.answer import Answer
from litapi.http.embedder import Embedder
from litapi.http.health import Health
from litapi.http.inputs import Reader
from litapi.http.middleware import wrap
from litapi.http.openapi import describe
from litapi.http.replay import Replay
from litapi.http.request import ASGIApp, ClientGone, Incoming, Receive, Scope, Send
from litapi.http.routes import ItemsRefused, Route, Routes, Table
from litapi.metrics import Metrics, exposition
from litapi.serving import Service
from litapi.settings import Settings
from litapi.transport.dispatcher import Dispatcher
from litapi.transport.pool import Pool, capacities

if TYPE_CHECKING:  # brings a whole HTTP client, which most servers never use
    from litapi.http.fetch import Fetcher

log = logging.getLogger("siglit.front")

FORWARDERS = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")  # uvicorn's own option and default
ONE_MODEL = ("GET", "/v1/models/")  # and its name
PAGES = ("/docs/", "/redoc/", "/openapi.json/", "/static-offline-docs/")  # and what lies below
YOUNG = 10_000  # objects before a collection; 32 requests in flight have 2,000
TELL_EVERY = 0.5  # seconds after which counts of the hot path are passed on
_HARMLESS = re.compile(rb"[A-Za-z0-9._:/=+-]{1,128}").fullmatch


class Shared(Protocol):
    """What the main process shares with every HTTP process."""

    draining: Any  # its `value` is 1 once the server was told to end
    busy: Any  # an array: how many requests each HTTP process is answering


class App:
    """The ASGI application. `response_queue_id` is LitServe's name for which process this is."""

    response_queue_id: int | None = None

    def __init__(
        self,
        service: Service,
        dispatcher: Callable[[int], Dispatcher],
        cache: Callable[[Metrics], VectorCache],
        state: Shared,
    ) -> None:
        settings = service.settings
        self._service = service
        self._make_dispatcher = dispatcher
        self._make_cache = cache
        self._shared = state
        self._limit = settings.max_body_bytes
        self._access = Access(
            settings.keys(),
            settings.rate_limit,
            wrong_keys=settings.max_wrong_keys,
            forwarders=FORWARDERS,
            processes=settings.front_processes,
        )
        self.take_keys = self._access.take_keys
        self._logs = settings.access_log == "on"
        self._pages: Any = describe()
        self._in_flight = 0
        self._wrapped = False  # a middleware must see every message

    def wrapped(self) -> ASGIApp:
        app = wrap(self, self._service.settings)
        self._wrapped = app is not self
        return app

    async def _open(self, stack: AsyncExitStack) -> None:
        service, settings = self._service, self._service.settings
        self._consumer = self.response_queue_id or 0
        self._busy = self._shared.busy
        self._fresh = _fresh_ids()
        self._metrics = Metrics()
        self._metrics.tiers("+".join(service.cache_tiers))
        dispatcher = self._make_dispatcher(self._consumer)
        dispatcher.start()
        dispatcher.on_keys = self.take_keys
        cache = self._make_cache(self._metrics)
        service.cache_problems = lambda: cache.problems
        stack.push_async_callback(cache.close)  # also where its start is cut off
        await cache.start()
        if cache.store is not None and self._consumer == 0:
            for sentence in await cache.store.inspect():
                if sentence not in cache.store.trouble.sentences:  # those are logged already
                    log.warning("%s", sentence)
        fetcher = make_fetcher(settings)
        if fetcher is not None:
            await fetcher.start()
            stack.push_async_callback(fetcher.close)
        capacity = capacities(service.workers, service.checkpoint.text_length, service.patches)
        self._pool = Pool(settings, dispatcher, self._metrics, service.patches, capacity)
        self._health = Health(settings, dispatcher, self._pool.served)
        self._lay_tables(cache, fetcher)
        await self._health.first()
        for work in (self._health.run(), self._tell()):
            stack.callback(asyncio.create_task(work).cancel)
        stack.callback(self._metrics.tell)
        gc.collect()
        gc.freeze()  # what is here now stays: the collector need not walk it again and again
        gc.set_threshold(YOUNG)

    def _lay_tables(self, cache: VectorCache, fetcher: Fetcher | None) -> None:
        service, settings, pool = self._service, self._service.settings, self._pool
        reader = Reader(settings, fetcher)
        kept = settings.answer_cache_mb << 20 if settings.cache == "on" else 0
        replay = Replay(kept, self._metrics)

        def embedding(owner: str = "") -> Table:
            prints, timeout = service.fingerprints(owner), settings.timeout
            embedder = Embedder(prints, cache, pool.submit, timeout, pool.begun)
            return Routes(service, reader, embedder).table()

        table = {
            **{name: replay.over(route) for name, route in embedding().items()},
            **facts(service),
            ("GET", "/livez"): told(lambda: {"status": "alive"}),
            ("GET", "/readyz"): told(self._readiness),
            ("GET", "/metrics"): self._exposed,
        }
        apart = settings.cache_per_key == "on"

        @functools.cache
        def table_of(owner: bytes) -> Table:
            """Where vectors are kept apart, those of a key have their own keys; no replay."""
            return {**table, **embedding(owner.hex())} if apart else table

        self._table, self._table_of = table, table_of
        self._paths = frozenset(path for _, path in table)

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
        await stack.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._lifespan(receive, send)
            return
        began = time.perf_counter()
        incoming = Incoming(scope, receive, self._limit)
        self._in_flight += 1
        self._busy[self._consumer] = self._in_flight
        try:
            answer = await self._answer(incoming)
            if answer is None:
                # uvicorn drops the body of an answer to HEAD
                method = "GET" if incoming.method == "HEAD" else incoming.method
                page = {**scope, "path": incoming.path, "method": method}
                await self._pages(page, receive, send)
                return
            request_id = _request_id(incoming, self._fresh)
            if self._wrapped or not _sent_whole(answer, incoming, request_id):
                await _send(answer, incoming, request_id, send)
        except ClientGone:
            return
        finally:
            self._in_flight -= 1
            self._busy[self._consumer] = self._in_flight
        seconds = time.perf_counter() - began
        label = incoming.path if incoming.path in self._paths else "other"
        self._metrics.answered(label, answer.status, seconds)
        if self._logs:
            _log_request(label, incoming, answer.status, seconds, request_id)

    async def _answer(self, incoming: Incoming) -> Answer | None:
        try:
            owner = self._access.check(incoming)
            incoming.wish()
            route = self._route(incoming, self._table_of(owner) if owner else self._table)
            return None if route is None else await route(incoming)
        except ItemsRefused as refused:
            return Answer.error(refused.error, refused.items)
        except ServiceError as error:
            return Answer.error(error)
        except ClientGone:
            raise
        except Exception:
            log.exception("a request failed")
            return Answer.error(ServiceError())

    def _route(self, incoming: Incoming, table: Table) -> Route | None:
        method, path = incoming.method, incoming.path
        route = table.get(("GET" if method == "HEAD" else method, path))
        if route is not None:
            return route
        if f"{path}/".startswith(PAGES):
            return None
        if path in self._paths:
            found = {method for method, known in table if known == path}
            raise MethodNotAllowed(found | {"HEAD"} if "GET" in found else found)
        if path.startswith(ONE_MODEL[1]) and method in ("GET", "HEAD"):
            return table[ONE_MODEL]
        raise RouteUnknown

    def _readiness(self) -> dict[str, str]:
        if self._shared.draining.value:
            raise NotReady("The server is shutting down.")
        self._health.check()
        return {"status": "ready"}

    async def _exposed(self, incoming: Incoming) -> Answer:
        del incoming
        self._observe()
        text = await asyncio.to_thread(exposition)
        kind = (b"content-type", b"text/plain; version=1.0.0; charset=utf-8")
        return Answer(text, headers=[kind])

    async def _tell(self) -> None:
        """Any HTTP process may answer `/metrics`, with what the others have told by then."""
        while True:
            await asyncio.sleep(TELL_EVERY)
            self._observe()

    def _observe(self) -> None:
        self._pool.observe()
        self._metrics.tell()


def told(content: Callable[[], Any]) -> Route:
    """A route that answers the same whatever the request holds."""

    async def tell(incoming: Incoming) -> Answer:
        del incoming
        return Answer.json(content())

    return tell


def facts(service: Service) -> Table:
    """The routes that describe the model and the server."""
    card = {"id": service.name, "object": "model", "created": int(time.time())}
    card["owned_by"] = "siglit"

    async def model(incoming: Incoming) -> Answer:
        if not service.answers_to(incoming.path.removeprefix(ONE_MODEL[1])):
            raise ModelUnknown
        return Answer.json(card)

    return {
        ("GET", "/v1/models"): told(lambda: {"object": "list", "data": [card]}),
        ONE_MODEL: model,
        ("GET", "/info"): told(service.info),
    }


def _fresh_ids() -> Iterator[bytes]:
    """A random prefix for each process, then a counter: random bytes would cost a system call."""
    start = os.urandom(5).hex().encode()
    return (b"%b%06x" % (start, number) for number in itertools.count())


def _request_id(incoming: Incoming, fresh: Iterator[bytes]) -> bytes:
    """The client's own, where it is safe to repeat, else a new one."""
    given = incoming.headers.get(b"x-request-id")
    return given if given and _HARMLESS(given) else next(fresh)


async def _send(answer: Answer, incoming: Incoming, request_id: bytes, send: Send) -> None:
    length = (b"content-length", b"%d" % len(answer.body))
    headers = [*answer.headers, length, (b"x-request-id", request_id)]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    body = b"" if incoming.method == "HEAD" else answer.body
    await send({"type": "http.response.body", "body": body})


def _sent_whole(answer: Answer, incoming: Incoming, request_id: bytes) -> bool:
    if incoming.method == "HEAD":
        return False
    head = b"%bx-request-id: %b\r\n" % (answer.lines(), request_id)
    return incoming.connection.send_whole(incoming.scope, answer.status, head, answer.body)


def _log_request(
    label: str, incoming: Incoming, status: int, seconds: float, request_id: bytes
) -> None:
    facts = {
        "route": label,
        "method": incoming.method,
        "status": status,
        "ms": round(seconds * 1e3, 3),
        "request_id": request_id.decode("ascii"),
        "class": "bulk" if incoming.bulk else "interactive",
        "client": incoming.key.name if incoming.key else "-",
    }
    form = "%(method)s %(route)s %(status)s %(ms)s ms %(request_id)s %(class)s %(client)s"
    log.info(form, facts, extra=facts)


def make_fetcher(settings: Settings) -> Fetcher | None:
    """The fetcher of images by URL, where the settings allow it at all. Raises ValueError: the
    settings name hosts that are none."""
    if settings.image_urls == "off":
        return None
    from litapi.http.fetch import Fetcher, FetchPolicy

    policy = FetchPolicy(
        hosts=settings.image_url_hosts,
        any_public=settings.image_urls == "any-public",
        private_ok=settings.image_url_private == "on",
        max_bytes=settings.max_image_bytes,
        max_request_bytes=max(settings.max_body_bytes, settings.max_image_bytes),
        max_held_bytes=max(settings.image_url_mb << 20, settings.max_image_bytes),
        timeout=settings.image_url_timeout,
    )
    return Fetcher(policy)
