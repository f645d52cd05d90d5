"""AsyncClient: cut by the server's limits, several requests under way, every row in its place.

    texts    ─► cut ─► /embed_text, raw rows back
    pictures ─► cut ─► read, hash ─► by digest ─► those it does not know: their bytes

A picture by digest costs the server what a text costs; its bytes cost a hundred times as much.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypedDict, Unpack, overload

import httpx

from litapi.client.answers import OCTETS, Sender, pause_before, refusal_of, take
from litapi.client.embedded import (
    TEMPLATE,
    Embedded,
    ItemRefused,
    OnError,
    Options,
    Raise,
    RequestRefused,
    Return,
    Scores,
    ServerLost,
    SpaceChanged,
    Vectors,
    captions,
    listed,
)
from litapi.client.pictures import Picture, encoded, size_of
from litapi.client.spans import bar, cut, side_by_side
from litapi.scoring import Scoring, Sigmoid, ensemble

WORTH_ASKING = 4096  # bytes; a smaller picture costs no more than the question whether it is known
ROOM = 64 << 10  # of a body, for what stands around the items
PICTURES_BYTES = 8 << 20  # of one request, so that those under way fit into memory
LONGEST_ESCAPE = 6  # bytes of a character in JSON
Ask = Callable[[Sequence[int], float], Awaitable[httpx.Response]]


@dataclass(frozen=True, slots=True)
class Facts:
    """What /info says that matters here."""

    dim: int
    space: str | None
    scoring: Scoring
    items: int
    chars: int
    image_bytes: int
    body_bytes: int
    seconds: float
    digests: bool

    @classmethod
    def of(cls, info: dict[str, Any]) -> Facts:
        """From the body of /info; a server that says nothing of digests looks none up."""
        model, limits = info["model"], info["limits"]
        return cls(
            dim=model["dimension"],
            space=model.get("space"),
            scoring=_scoring(model),
            items=limits["items"],
            chars=limits["request_chars"],
            image_bytes=limits["image_bytes"],
            body_bytes=limits["body_bytes"] - ROOM,
            seconds=limits["timeout_seconds"],
            digests=bool(info["cache"].get("digest_lookups")),
        )


def _scoring(model: dict[str, Any]) -> Scoring:
    own, found = Sigmoid(model["logit_scale"], model["logit_bias"]), model.get("calibration")
    if not found:
        return Scoring(own)
    return Scoring(own, Sigmoid(found["scale"], found["bias"]), found["threshold"])


class Manner(TypedDict, total=False):
    """How a client asks: see `AsyncClient`."""

    priority: str | None
    in_flight: int
    batch: int
    give_up_after: float
    digests: bool
    transport: httpx.AsyncBaseTransport | None


class AsyncClient:
    """Asks one server. Close it, or use it in `async with`.

    `priority` "bulk" lets interactive requests go first. `in_flight` requests are under way at a
    time, each of at most `batch` items. A request is tried again for `give_up_after` seconds.
    `transport` is httpx's, for a proxy, certificates or a Unix socket of one's own. Raises
    ServerLost where `url` is none.
    """

    def __init__(
        self,
        url: str = "http://localhost:8080",
        api_key: str | None = None,
        *,
        priority: str | None = None,
        in_flight: int = 8,
        batch: int = 32,
        give_up_after: float = 120.0,
        digests: bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        if priority:
            headers["x-priority"] = priority
        self._in_flight, self._batch, self._digests = in_flight, batch, digests
        try:
            self._http = httpx.AsyncClient(
                base_url=url,
                headers=headers,
                transport=transport,
                limits=httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight),
                timeout=httpx.Timeout(give_up_after, connect=10.0, pool=None),
            )
        except httpx.InvalidURL as error:
            raise ServerLost(f"no URL: {error}") from None
        self._sender = Sender(self._http, give_up_after)
        self._facts: Facts | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def info(self) -> dict[str, Any]:
        """The body of /info. Raises RequestRefused, ServerLost."""
        answer = await self._sender.send("GET", "/info", self._sender.deadline())
        if answer.status_code != 200:
            raise refusal_of(answer)
        try:
            info: dict[str, Any] = answer.json()
            Facts.of(info)
        except (ValueError, LookupError, TypeError, AttributeError):  # a page of another program
            raise RequestRefused(200, "unknown", f"{answer.url} is not siglit's") from None
        return info

    async def space(self) -> str | None:
        """The space that vectors are from; None on a server that does not tell it."""
        return (await self._known()).space

    @overload
    async def embed_texts(
        self, texts: Iterable[str], *, on_error: Return, **options: Unpack[Options]
    ) -> Embedded: ...

    @overload
    async def embed_texts(
        self, texts: Iterable[str], *, on_error: Raise = "raise", **options: Unpack[Options]
    ) -> Vectors: ...

    async def embed_texts(
        self, texts: Iterable[str], *, on_error: OnError = "raise", **options: Unpack[Options]
    ) -> Vectors | Embedded:
        """(n, dim) float32 in the order given, or with `on_error="return"` an `Embedded`.

        Raises:
            ItemsRefused: some are refused, once all others are done.
            RequestRefused, ServerLost: nothing more can be done.
            SpaceChanged: the server began to serve another model meanwhile.
        """
        texts = list(texts)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("every text must be a str")
        facts = await self._known()
        into = Embedded.blank(len(texts), options.get("dimensions") or facts.dim, facts.space)
        asked = _asked(options)

        async def ask(places: Sequence[int], until: float) -> httpx.Response:
            body = _json({"texts": [texts[i] for i in places], **asked})
            return await self._post("/embed_text", until, body, accept=OCTETS)

        most = min(facts.chars, facts.body_bytes // LONGEST_ESCAPE)
        spans = cut(map(len, texts), min(self._batch, facts.items), most)
        with bar(len(texts), options.get("progress", False)) as tell:
            settle = partial(self._settle, ask, into)
            await side_by_side(spans, settle, self._in_flight, tell)
        return into.whole() if on_error == "raise" else into

    @overload
    async def embed_images(
        self, images: Iterable[Picture], *, on_error: Return, **options: Unpack[Options]
    ) -> Embedded: ...

    @overload
    async def embed_images(
        self, images: Iterable[Picture], *, on_error: Raise = "raise", **options: Unpack[Options]
    ) -> Vectors: ...

    async def embed_images(
        self, images: Iterable[Picture], *, on_error: OnError = "raise", **options: Unpack[Options]
    ) -> Vectors | Embedded:
        """As `embed_texts`, of paths, encoded bytes and PIL images."""
        images = list(images)
        facts = await self._known()
        into = Embedded.blank(len(images), options.get("dimensions") or facts.dim, facts.space)
        asked = {**_asked(options), "encoding_format": "base64"}
        most = min(PICTURES_BYTES, facts.body_bytes)
        spans = cut(map(size_of, images), min(self._batch, facts.items), most)

        async def send(span: range) -> None:
            await self._pictures(images, span, into, asked, facts)

        with bar(len(images), options.get("progress", False)) as tell:
            await side_by_side(spans, send, self._in_flight, tell)
        return into.whole() if on_error == "raise" else into

    async def score(self, texts: Iterable[str], images: Iterable[Picture]) -> Scores:
        """Every text against every image, as /score has it and with no bound on how many. Raises:
        as `embed_texts`."""
        rows, columns = await asyncio.gather(self.embed_texts(texts), self.embed_images(images))
        facts = await self._known()
        return Scores.of(rows, columns, facts.scoring)

    async def classify(
        self,
        images: Iterable[Picture],
        labels: Sequence[str],
        template: str | Sequence[str] = TEMPLATE,
        threshold: float | None = None,
    ) -> Scores:
        """Every image against every label, as /classify has it, in order.

        With several templates a label's vector is the mean of its captions', of length 1 again.
        `threshold` says from which probability on a label holds.

        Raises: as `embed_texts`; ValueError where a template holds no {label}.
        """
        texts = captions(labels, template)
        columns, rows = await asyncio.gather(self.embed_texts(texts), self.embed_images(images))
        facts = await self._known()
        means = ensemble(columns, len(listed(template)))
        return Scores.of(rows, means, facts.scoring, threshold)

    async def _known(self) -> Facts:
        if self._facts is None:
            self._facts = Facts.of(await self.info())
            self._http.timeout = httpx.Timeout(self._facts.seconds + 15, connect=10.0, pool=None)
        return self._facts

    async def _settle(self, ask: Ask, into: Embedded, places: Sequence[int]) -> None:
        """Ask until each item has its vector or its own error; at the deadline the last reason."""
        until = self._sender.deadline()
        for attempt in itertools.count():
            still_open = self._take(await ask(places, until), places, into)
            if attempt:  # known by now, for it was computed a moment ago
                into.cached[list(places)] = False
            if not still_open:
                return
            if time.monotonic() > until:
                into.errors.update(still_open)
                return
            if attempt:  # the first time it is for a neighbour's sake, most likely
                await asyncio.sleep(pause_before(attempt))
            places = sorted(still_open)

    async def _pictures(
        self,
        images: Sequence[Picture],
        span: range,
        into: Embedded,
        asked: dict[str, Any],
        facts: Facts,
    ) -> None:
        read = await asyncio.to_thread(
            lambda: [encoded(images[i], facts.image_bytes) for i in span]
        )
        held = {}
        for place, data in zip(span, read, strict=True):
            if isinstance(data, ItemRefused):
                into.errors[place] = data
            else:
                held[place] = data
        if facts.digests and self._digests:
            large = [place for place, data in held.items() if len(data) > WORTH_ASKING]
            unknown = await self._by_digest(held, large, into, asked) if large else {}
            held = {p: data for p, data in held.items() if p in unknown or p not in large}

        async def ask(places: Sequence[int], until: float) -> httpx.Response:
            files = [("images", (str(i), held[i], OCTETS)) for i in places]
            return await self._sender.send("POST", "/embed_image", until, files=files, data=asked)

        if held:
            await self._settle(ask, into, list(held))

    async def _by_digest(
        self, held: dict[int, bytes], places: Sequence[int], into: Embedded, asked: dict[str, Any]
    ) -> dict[int, ItemRefused]:
        """Fill in what the server knows; the rest, by place. It is asked once: what cannot be
        answered by digest now is sent."""
        digests = await asyncio.to_thread(
            lambda: [hashlib.sha256(held[place]).hexdigest() for place in places]
        )
        body = _json({"sha256s": digests, **asked})
        answer = await self._post("/embed_image", self._sender.deadline(), body)
        return self._take(answer, places, into)

    def _take(
        self, answer: httpx.Response, places: Sequence[int], into: Embedded
    ) -> dict[int, ItemRefused]:
        try:
            return take(answer, places, into)
        except SpaceChanged:
            self._facts = None  # of the model that was
            raise

    async def _post(
        self, path: str, until: float, body: bytes, accept: str = "application/json"
    ) -> httpx.Response:
        headers = {"content-type": "application/json", "accept": accept}
        return await self._sender.send("POST", path, until, content=body, headers=headers)


def _json(content: dict[str, Any]) -> bytes:
    try:
        return json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate: escaped, it is that text's own fault alone
        return json.dumps(content).encode()


def _asked(options: Options) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value and name != "progress"}
