"""What a cache hit costs: CPU time of the HTTP process for each request, beside "hello world".

    python -m bench.micro.hits                        # demo checkpoint and dimensions 768 and 1152
    python -m bench.micro.hits --dims 1152 --rounds 3

All systems run at the same time and take turns, slice by slice, round by round. CPU time is what
is measured, as it holds still where the rate of a shared machine does not; the rate stands beside
it. Even CPU time moves within a round, so each system is held against a slice of "hello GET" right
before its own. Every system but the GETs sends the same texts in turn, so no two requests under way
are equal and none can join another's look-up. "answer" is siglit as it comes, which keeps the whole
answer of a request that comes again to the byte; "memory" is the look-up of each vector by its
content, with no answers kept; "Redis" is that with no memory either. A share of hits below 99.9 %
fails the run. "computed" has no cache at all: what the HTTP process spends where the towers of the
demo checkpoint answer.
"picture" rows have the demo checkpoint alone: a picture that memory has, sent raw, and asked for
by its digest.
Exit code 0: all targets met; 1: not; 2: the run failed.
"""

from __future__ import annotations

import io
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import psutil
from PIL import Image
from tqdm import tqdm

from bench.micro.hello import greeting
from bench.micro.sender import Request, Sender, SendError, Sent, sender
from bench.rig.command import concluded, measuring
from bench.rig.process_clock import cpu_seconds
from bench.rig.random_checkpoint import write
from bench.rig.redis_server import RedisServer
from bench.rig.rounds import Spread, Target, ratio
from bench.rig.server_process import ServerProcess

DEMO = 96  # the dimension of the checkpoint that ships
DIMS = (DEMO, 768, 1152)
SINGLES, MANY, BATCHES = 512, 64, 32
BASE = "hello GET"
LIMITS = {
    "answer base64": 1.6,
    "answer JSON floats": 3.0,
    "memory base64": 1.6,
    "memory JSON floats": 3.0,
    "Redis base64": 2.6,
}
SIZES = {"150 KB": 150_000, "2 MB": 2_000_000}  # of pictures
PICTURES = 4  # of each size
TO_TEXT = 1.5  # a picture by digest ÷ a text, at most
TO_RAW = {"150 KB": 0.2, "2 MB": 0.03}  # ÷ the same picture raw
LEAST_HITS = 99.9
PATIENT = ("--redis-budget-ms", "1000")  # what a hit costs is asked, not how many are in time
OCTETS = "application/octet-stream"
COLUMNS = ("dim", "system", "CPU µs", "least", "most", "× GET", "req/s", "hits %")


def text(number: int) -> str:
    """Of the length of a caption, and like no other."""
    return f"a photo of a red fox in the snow, number {number}"


def singles(form: str) -> tuple[bytes, ...]:
    """Bodies with one text each."""
    return tuple(orjson.dumps({"input": text(n), "encoding_format": form}) for n in range(SINGLES))


def batches(form: str) -> tuple[bytes, ...]:
    """Bodies with 64 texts each."""
    spans = [range(n * MANY, (n + 1) * MANY) for n in range(BATCHES)]
    return tuple(
        orjson.dumps({"input": [text(n) for n in span], "encoding_format": form}) for span in spans
    )


def pictures(size: int) -> tuple[bytes, ...]:
    """PNG files of noise, of about that many bytes."""
    side = round((size / 3) ** 0.5)
    noise = np.random.default_rng(size).integers(0, 256, (PICTURES, side, side, 3), np.uint8)
    files = [io.BytesIO() for _ in noise]
    for pixels, file in zip(noise, files, strict=True):
        Image.fromarray(pixels).save(file, "PNG")
    return tuple(file.getvalue() for file in files)


def by_digest(files: Sequence[bytes]) -> tuple[bytes, ...]:
    """Bodies with the digest of one picture each."""
    parts = [{"sha256": sha256(file).hexdigest()} for file in files]
    return tuple(orjson.dumps({"input": [one], "encoding_format": "base64"}) for one in parts)


@dataclass(slots=True)
class System:
    """One line of the table: a process that is asked something, and what that cost."""

    name: str
    url: str
    pid: int
    request: Request
    tier: str = ""  # where every answer must come from
    micros: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)  # of "hello GET", right before each slice
    rates: list[float] = field(default_factory=list)
    hits: list[float] = field(default_factory=list)

    def send(self, way: Sender, seconds: float) -> Sent:
        """Send, and name who failed."""
        try:
            return way.send(self.url, self.request, seconds)
        except SendError as error:
            raise SendError(f"{self.name}: {error}") from None

    @property
    def times(self) -> float:
        """How many times as dear as "hello GET" beside it."""
        return ratio(self.micros, self.beside)

    def measure(self, way: Sender, seconds: float, beside: System) -> None:
        """A slice of that one, then one of its own."""
        self.beside.append(beside.slice(way, seconds / 2)[0])
        before = lookups(self.url, self.tier)
        micros, rate = self.slice(way, seconds)
        self.micros.append(micros)
        self.rates.append(rate)
        if self.tier:
            self.hits.append(share(before, lookups(self.url, self.tier)))

    def slice(self, way: Sender, seconds: float) -> tuple[float, float]:
        """Microseconds of CPU time for a request, and requests a second."""
        used = cpu_seconds(self.pid)
        sent = self.send(way, seconds)
        micros = (cpu_seconds(self.pid) - used) / sent.requests * 1e6
        return micros, sent.requests / sent.seconds


def lookups(url: str, tier: str) -> dict[str, float]:
    """Result → look-ups in a tier so far, as the server counts them."""
    if not tier:
        return {}
    exposed = httpx.get(f"{url}/metrics", timeout=30).text
    found = re.findall(r"^cache_requests_total\{(.+)\} (\S+)$", exposed, re.MULTILINE)
    labels = [(dict(re.findall(r'(\w+)="([^"]*)"', pairs)), float(n)) for pairs, n in found]
    return {one["result"]: n for one, n in labels if one["tier"] == tier}


def share(before: dict[str, float], after: dict[str, float]) -> float:
    """Percent of hits among the look-ups between."""
    made = {name: n - before.get(name, 0.0) for name, n in after.items()}
    return 100 * made.get("hit", 0.0) / max(1.0, sum(made.values()))


# -- systems -------------------------------------------------------------------------------------


@contextmanager
def systems(dim: int) -> Iterator[list[System]]:
    """All of one dimension, up and warm."""
    with ExitStack() as stack:
        flags = ["--http-workers", "1", "--threads", "1"]
        if dim != DEMO:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            flags += ["--model", str(write(folder, dim))]
        redis = stack.enter_context(RedisServer())
        hello = stack.enter_context(greeting())
        answers = stack.enter_context(ServerProcess(*flags, REDIS_URL=redis.url))
        flags += ["--answer-cache-mb", "0"]
        memory = stack.enter_context(ServerProcess(*flags, REDIS_URL=redis.url))
        flags += ["--memory-cache-mb", "0", *PATIENT]
        shared = stack.enter_context(ServerProcess(*flags, REDIS_URL=redis.url))
        found = [
            System(BASE, *hello, Request("/")),
            System("hello POST", *hello, Request("/", singles("base64"))),
            *_warm(answers, "answer", ("base64", "JSON floats"), "l1", "hit-l1"),
            *_warm(memory, "memory", FORMS, "l1", "hit-l1"),
            *_warm(shared, "Redis", MANY_FORMS, "redis", "hit-l2"),
        ]
        if dim == DEMO:  # towers of another dimension would need seconds for 64 items
            found += _pictures(memory)
            cold = ServerProcess("--http-workers", "1", "--threads", "1", "--cache", "off")
            towers = stack.enter_context(cold)
            # What the HTTP process spends where the towers answer; their own time is not in it.
            found += _warm(towers, "computed", MANY_FORMS, "", "miss")
        yield found


def _embeddings(bodies: tuple[bytes, ...], accept: str = "*/*") -> Request:
    return Request("/v1/embeddings", bodies, accept)


FORMS = {
    "base64": lambda: _embeddings(singles("base64")),
    "JSON floats": lambda: _embeddings(singles("float")),
    "octets": lambda: _embeddings(singles("float"), OCTETS),
    "base64, 64 items": lambda: _embeddings(batches("base64")),
    "octets, 64 items": lambda: _embeddings(batches("float"), OCTETS),
}
MANY_FORMS = ("base64", "base64, 64 items")


def _pictures(server: ServerProcess) -> list[System]:
    """Each size raw, then by digest."""
    requests = dict[str, Request]()
    for name, size in SIZES.items():
        files = pictures(size)
        raw = Request("/embed_image?encoding_format=base64", files, content_type="image/png")
        requests |= {f"picture {name} raw": raw}
        requests |= {f"picture {name} by digest": _embeddings(by_digest(files))}
    return _warmed(server, requests, "l1", "hit-l1")


def _warm(
    server: ServerProcess, name: str, forms: Iterable[str], tier: str, state: str
) -> list[System]:
    """A system for each form."""
    requests = {f"{name} {form}": FORMS[form]() for form in forms}
    return _warmed(server, requests, tier, state)


def _warmed(
    server: ServerProcess, requests: Mapping[str, Request], tier: str, state: str
) -> list[System]:
    """A system for each, once all its items are answered from where they shall be."""
    with httpx.Client(base_url=server.url, timeout=120) as client:
        client.get("/livez")
        pid = answering(server)
        for request in requests.values():
            _heat(client, request, state)
    return [System(name, server.url, pid, one, tier) for name, one in requests.items()]


def _heat(client: httpx.Client, request: Request, state: str) -> None:
    """Writes to Redis come a moment later, so those that missed are asked again."""
    cold: Sequence[bytes] = request.bodies
    ends = time.monotonic() + 300
    while cold:
        if time.monotonic() > ends:
            raise SendError(f"{len(cold)} requests never became {state}")
        cold = [body for body in cold if not _hits(client, request, body, state)]


def _hits(client: httpx.Client, request: Request, body: bytes, state: str) -> bool:
    headers = {"content-type": request.content_type, "accept": request.accept}
    answer = client.post(request.path, content=body, headers=headers)
    answer.raise_for_status()
    return set(answer.headers["x-cache"].split(",")) == {state}


def answering(server: ServerProcess) -> int:
    """The process at the other end of a connection that somebody holds open to the server."""
    for pid in server.family():
        ends = psutil.Process(pid).net_connections("tcp")
        if any(e.laddr.port == server.port and e.status == psutil.CONN_ESTABLISHED for e in ends):
            return pid
    raise RuntimeError("no process of the server holds the connection")


# -- run and report ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Comparison:
    """The systems of one dimension, measured."""

    dim: int
    systems: list[System]

    def rows(self) -> list[list[str]]:
        """The lines of the table."""
        return [self._row(one, Spread.of(one.micros)) for one in self.systems]

    def _row(self, one: System, micros: Spread) -> list[str]:
        figures = [micros.median, micros.low, micros.high]
        rate = f"{Spread.of(one.rates).median:.0f}"
        hits = f"{min(one.hits):.2f}" if one.hits else "–"
        cells = [*(f"{f:.1f}" for f in figures), f"{one.times:.2f}", rate, hits]
        return [str(self.dim), one.name, *cells]

    def targets(self) -> list[Target]:
        """Those that the table of limits names, and what a picture by digest saves."""
        spent = {one.name: one.micros for one in self.systems}
        digests = {size: spent.get(f"picture {size} by digest") for size in SIZES}
        return [
            Target(f"{one.name}, {self.dim} numbers", one.times, LIMITS[one.name])
            for one in self.systems
            if one.name in LIMITS
        ] + [
            Target(f"{size} by digest ÷ {beside}", ratio(micros, spent[beside]), limit)
            for size, micros in digests.items()
            if micros
            for beside, limit in (
                ("memory base64", TO_TEXT),
                (f"picture {size} raw", TO_RAW[size]),
            )
        ]

    def fields(self) -> dict[str, Any]:
        return {"dim": self.dim, "systems": [self._fields(one) for one in self.systems]}

    def _fields(self, one: System) -> dict[str, Any]:
        return {
            "name": one.name,
            "cpu_us": Spread.of(one.micros).fields(),
            "requests_per_s": Spread.of(one.rates).fields(),
            "hello_get_us": Spread.of(one.beside).fields(),
            "times_hello_get": round(one.times, 3),
            "hits_pct": min(one.hits, default=None),
        }


def compare(dim: int, way: Sender, rounds: int, seconds: float) -> Comparison:
    """Measure one dimension.

    Raises:
        SendError: requests failed, or were no hits.
    """
    with systems(dim) as all_of_them:
        for one in all_of_them:  # a slice each that is thrown away: caches of the processor, pools
            one.send(way, min(1.0, seconds))
        greeting = all_of_them[0]
        turns = [one for _ in range(rounds) for one in all_of_them]
        for one in tqdm(turns, desc=f"{dim} numbers", unit="slice", leave=False, disable=None):
            one.measure(way, seconds, greeting)
    for one in all_of_them:
        if one.hits and min(one.hits) < LEAST_HITS:
            raise SendError(f"{one.name}: {min(one.hits):.2f} % hits")
    return Comparison(dim, all_of_them)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = measuring("bench.micro.hits", __doc__, rounds=7, seconds=2.0)
    parser.add_argument("--dims", type=int, nargs="+", default=DIMS, metavar="N")
    parser.add_argument("--concurrency", type=int, default=32, help="kept connections")
    options = parser.parse_args(arguments)
    way = sender(options.concurrency)
    try:
        done = [compare(dim, way, options.rounds, options.seconds) for dim in options.dims]
    except (SendError, httpx.HTTPError, RuntimeError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    targets = [target for one in done for target in one.targets()]
    rows = [COLUMNS, *(row for one in done for row in one.rows())]
    dims = [one.fields() for one in done]
    fields = {"concurrency": options.concurrency, "load": way.name, "dims": dims}
    return concluded("hits", options, rows, targets, fields)


if __name__ == "__main__":
    sys.exit(main())
