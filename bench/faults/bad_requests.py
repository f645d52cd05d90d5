"""Rows 10 and 12: ten thousand bad requests, one for each good one, and URLs that lead inside.

Each bad request is bad by construction, but for damaged pictures, which may still decode. Every
refusal is a 4xx that carries a stable code in JSON; good requests beside them are answered right.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from bench.faults.hostile import (
    FORBIDDEN_HOSTS,
    INVALID_URLS,
    huge,
    mutated,
    originals,
)
from bench.faults.question import IMAGE, JSON, OPENAI, TEXT
from bench.faults.row import Finding
from bench.faults.stage import Stage, post
from bench.faults.traffic import PATIENCE
from bench.load.connection import Address, Fault, Pool, head_of
from bench.load.route import Judge
from litapi.settings import Settings

LIMITS = Settings()

CLIENTS = 8
ORIGINALS = originals()
VALUES: tuple[Any, ...] = (None, True, 0, -1, 1.5, 1e300, [], {}, [[]], [None], {"a": {"b": []}})
OPTIONS: tuple[tuple[str, Any], ...] = (
    ("dimensions", 0), ("dimensions", -1), ("dimensions", 10**9), ("dimensions", "8"),
    ("dimensions", 1.5), ("max_num_patches", 0), ("max_num_patches", 10**6),
    ("encoding_format", "hex"), ("encoding_format", 1), ("model", "nobody"), ("model", []),
    ("colour", "red"),
)  # fmt: skip
BESIDE = 2
PORT = 80  # the only one that is dialled for http
ADDRESSES = ("127.0.0.1", "127.0.0.2", "::1")


@dataclass(frozen=True, slots=True)
class Bad:
    """A request that must be refused, unless it is a picture that still decodes."""

    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)
    may_pass: bool = False
    method: str = "POST"


def _json(path: str, body: Any) -> Bad:
    return Bad(path, json.dumps(body).encode())


def damaged_picture(rng: Random) -> Bad:
    """As a raw body or in JSON."""
    data = mutated(rng.choice(ORIGINALS), rng)
    if rng.random() < 0.5:
        return Bad(IMAGE, data, {"content-type": "image/png"}, may_pass=True)
    body = json.dumps({"image": base64.b64encode(data).decode()}).encode()
    return Bad(IMAGE, body, may_pass=True)


def no_picture(rng: Random) -> Bad:
    """Headers that claim huge sizes, other files, nothing at all."""
    others = (b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"MZ\0\0", b"", b"\0" * 99)
    data = rng.choice((*huge(), rng.randbytes(300), *others))
    return Bad(IMAGE, data, {"content-type": rng.choice(("image/png", "application/octet-stream"))})


def malformed_json(rng: Random) -> Bad:
    """Cut short, of another grammar, nested without end."""
    good = json.dumps({"texts": ["a red circle", "b" * 50], "model": None}).encode()
    bodies = (
        good[: rng.randrange(len(good))], good + b"}", b"{'text': 'a'}", b'{"text": NaN}',
        b'{"text": "\xff\xfe"}', b'{"text": "\\ud800"}', b"[" * 100_000, rng.randbytes(40),
    )  # fmt: skip
    return Bad(rng.choice((TEXT, IMAGE, OPENAI, "/score", "/classify")), rng.choice(bodies))


def wrong_shape(rng: Random) -> Bad:
    """The right fields with values of other types; whole bodies that are no objects."""
    value = rng.choice(VALUES)
    bodies: tuple[tuple[str, Any], ...] = (
        (TEXT, value), (TEXT, {"texts": value}), (TEXT, {"text": "a", "texts": ["b"]}),
        (TEXT, {"texts": ["a", value]}), (IMAGE, {"images": value}), (IMAGE, {"image": [value]}),
        (OPENAI, {"input": value}), (OPENAI, {"input": ["a", {"image": value}]}),
        (OPENAI, {"input": [{"image_url": {"url": value}}]}), (OPENAI, {}),
        ("/score", {"texts": ["a"], "images": value}),
        ("/classify", {"image": "", "labels": value}),
        (TEXT, {"text": "a", rng.choice("xyz") * rng.randint(1, 99): value}),
    )  # fmt: skip
    return _json(*rng.choice(bodies))


def wrong_media(rng: Random) -> Bad:
    """Content types a route does not read, and multipart bodies that break off."""
    cut = b'--x\r\ncontent-disposition: form-data; name="images"; filename="a.png"\r\n\r\nabc'
    form = "multipart/form-data"
    bodies = (
        (TEXT, b'{"text": "a"}', "text/html"), (TEXT, ORIGINALS[0], "image/jpeg"),
        (OPENAI, b"<a/>", "application/xml"), (IMAGE, ORIGINALS[0], "video/mp4"),
        (IMAGE, cut, form), (IMAGE, cut, f"{form}; boundary=x"),
        (IMAGE, rng.randbytes(200), f"{form}; boundary=x"),
    )  # fmt: skip
    path, body, kind = rng.choice(bodies)
    return Bad(path, body, {"content-type": kind})


def wrong_place(rng: Random) -> Bad:
    """Routes and methods that there are not."""
    places = (("POST", "/embed"), ("GET", TEXT), ("PUT", OPENAI), ("POST", "/readyz"))
    method, path = rng.choice((*places, ("POST", f"/{rng.randrange(10**9)}")))
    return Bad(path, b"", {}, method=method)


def one_of(bads: Iterable[Bad]) -> Callable[[Random], Bad]:
    """Any of those that are always the same."""
    kept = list(bads)
    return lambda rng: rng.choice(kept)


LONG = "a long text " * (LIMITS.max_text_chars // 12 + 1)
NO_BASE64 = ("%%%", "AAA", "", "=", "data:image/png,AAAA", "data:;base64,****", "é" * 8, "AA=A")
TOO_MUCH: tuple[tuple[str, Any], ...] = (
    (TEXT, {"texts": ["a"] * (LIMITS.max_items + 1)}), (TEXT, {"text": LONG}),
    (OPENAI, {"input": [LONG]}),
)  # fmt: skip
WITH_OPTIONS = ((TEXT, {"text": "a"}), (OPENAI, {"input": "a"}))
MAKERS: tuple[Callable[[Random], Bad], ...] = (
    damaged_picture,
    damaged_picture,
    damaged_picture,
    no_picture,
    malformed_json,
    wrong_shape,
    one_of(_json(path, {**body, name: v}) for path, body in WITH_OPTIONS for name, v in OPTIONS),
    one_of(_json(path, body) for path, body in TOO_MUCH),
    one_of(_json(IMAGE, body) for one in NO_BASE64 for body in ({"image": one}, {"images": [one]})),
    wrong_media,
    wrong_place,
)


def bad_requests(many: int) -> Iterator[Bad]:
    """The same ones each time."""
    rng = Random(3)
    for number in range(many):
        yield MAKERS[number % len(MAKERS)](rng)


class Verdicts:
    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()  # by code
        self.decoded = 0
        self.wrong: Counter[str] = Counter()

    def judge(self, bad: Bad, status: int, head: bytes, body: bytes) -> None:
        """A 4xx with a code, or a vector where the picture still decoded."""
        code = _code(body) if 400 <= status < 500 else None
        if code is not None:
            self.refused[code] += 1
        elif bad.may_pass and status == 200 and Judge().fault(head, body, 1) is None:
            self.decoded += 1
        else:
            self.wrong[f"{status} to {bad.path} {bad.body[:60]!r}: {body[:100]!r}"] += 1


def _code(body: bytes) -> str | None:
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return None


async def bad_traffic(stage: Stage, finding: Finding) -> None:
    """One bad request for each good one."""
    server = await stage.common()
    verdicts = Verdicts()
    left = bad_requests(stage.of(10_000, 400))
    pool = Pool(Address.of(server.url), CLIENTS)
    async with await stage.traffic(server, fresh=0.2) as traffic:

        async def client() -> None:
            for bad in left:
                try:
                    head = head_of(bad.path, len(bad.body), bad.headers, bad.method)
                    reply = await pool.ask(head + bad.body, PATIENCE)
                    verdicts.judge(bad, reply.status, reply.head, reply.body)
                except Fault as fault:
                    verdicts.wrong[f"{fault} to {bad.path} {bad.body[:60]!r}"] += 1
                await traffic.next()

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        finding.take(traffic.turn())
    pool.close()
    refused = sum(verdicts.refused.values())
    finding.must(not verdicts.wrong, f"every bad one refused: {verdicts.wrong.most_common(5)}")
    finding.must(finding.tally.refused == 0, "no good one refused")
    total = refused + verdicts.decoded + sum(verdicts.wrong.values())
    finding.note(
        f"{total} bad: {refused} × 4xx with {len(verdicts.refused)} codes,"
        f" {verdicts.decoded} damaged pictures that still decode, 0 × 5xx"
    )


@asynccontextmanager
async def listening(heard: Counter[str]) -> AsyncIterator[list[str]]:
    """Count connections inside, on the port that would be dialled, where this user may have it."""
    addresses: list[str] = []

    def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard["connection"] += 1
        writer.close()

    async with contextlib.AsyncExitStack() as stack:
        for address in ADDRESSES:
            with contextlib.suppress(OSError):
                server = await asyncio.start_server(accept, address, PORT)
                await stack.enter_async_context(server)
                addresses.append(address)
        yield addresses


async def ssrf(stage: Stage, finding: Finding) -> None:
    """Every URL in every way of asking."""
    server, heard = await stage.common(), Counter[str]()
    urls = [*(f"http://{host}/image" for host in FORBIDDEN_HOSTS), *INVALID_URLS]
    answers: Counter[str] = Counter()
    async with (
        listening(heard) as addresses,
        await stage.traffic(server, fresh=0.1) as traffic,
        finding.under(traffic, BESIDE),
    ):
        for url in urls:
            part = {"type": "image_url", "image_url": {"url": url}}
            for bad in (
                _json(IMAGE, {"url": url}), _json(IMAGE, {"urls": [url]}),
                _json(OPENAI, {"input": [part]}),
            ):  # fmt: skip
                reply = await post(server.url, bad.path, bad.body, JSON)
                answers[f"{reply.status} {json.loads(reply.body)['error']['code']}"] += 1
    finding.must(all(one.startswith("4") for one in answers), f"all 4xx: {dict(answers)}")
    finding.must(answers["403 image_url_forbidden"] > 0, "those that lead inside are forbidden")
    finding.must(not heard, f"no connection inside: {dict(heard)}")
    where = ", ".join(addresses) or "nowhere: the port was not to be had"
    finding.note(f"{len(urls)} URLs, {sum(answers.values())} requests {dict(answers)}")
    finding.note(f"listening on port {PORT} of {where}")
