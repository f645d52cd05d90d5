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
fails the run. "computed" has no cache at all: what the HTTP process alone spends where the towers
answer.
"picture" rows have the demo checkpoint alone: a picture that memory has, sent raw, and asked for
by its digest.
Exit code 0: all targets met; 1: not; 2: the run failed.
"""

from __future__ import annotations

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
import orjson
import psutil
from prometheus_client.parser import text_string_to_metric_families

from bench.load.photo import noise
from bench.micro.sender import Request, SendError, greeting, send
from bench.rig.command import Figures, Target, concluded, failing, in_turn, measuring, ratio
from bench.rig.random_checkpoint import write_size
from bench.rig.redis_server import RedisServer
from bench.rig.server_process import ServerProcess, cpu_seconds

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


def texts(many: int) -> list[str]:
    return [f"a photo of a red fox in the snow, number {n}" for n in range(many)]


def bodies(inputs: Iterable[object], form: str) -> tuple[bytes, ...]:
    return tuple(orjson.dumps({"input": one, "encoding_format": form}) for one in inputs)


@dataclass(slots=True)
class System:
    """One line of the table: a process that is asked something, and what that cost."""

    name: str
    url: str
    pid: int
    request: Request
    tier: str = ""  # where every answer must come from
    figures: Figures = field(default_factory=lambda: Figures(list))
    hits: list[float] = field(default_factory=list)

    @property
    def times(self) -> float:
        return self.figures.ratio("cpu_us", "hello_get_us")

    def measure(self, beside: System, seconds: float, connections: int) -> None:
        """A slice of "hello GET", then one of its own."""
        self.figures["hello_get_us"].append(beside.slice(seconds / 2, connections)[0])
        before = lookups(self.url, self.tier)
        micros, rate = self.slice(seconds, connections)
        self.figures["cpu_us"].append(micros)
        self.figures["requests_per_s"].append(rate)
        if self.tier:
            self.hits.append(share(before, lookups(self.url, self.tier)))

    def slice(self, seconds: float, connections: int) -> tuple[float, float]:
        """Microseconds of CPU time for a request, and requests a second."""
        used = cpu_seconds(self.pid)
        try:
            requests, took = send(self.url, self.request, seconds, connections)
        except SendError as error:
            raise SendError(f"{self.name}: {error}") from None
        return (cpu_seconds(self.pid) - used) / requests * 1e6, requests / took

    def row(self, dim: int) -> list[str]:
        rate, *_ = self.figures.cells("requests_per_s", ".0f")
        hits = f"{min(self.hits):.2f}" if self.hits else "–"
        return [str(dim), self.name, *self.figures.cells("cpu_us"), f"{self.times:.2f}", rate, hits]

    def fields(self) -> dict[str, Any]:
        shares = {"times_hello_get": round(self.times, 3), "hits_pct": min(self.hits, default=None)}
        return {"name": self.name, **self.figures.fields(), **shares}


def lookups(url: str, tier: str) -> dict[str, float]:
    """Result → look-ups in a tier so far, as the server counts them."""
    exposed = httpx.get(f"{url}/metrics", timeout=30).text if tier else ""
    samples = (one for family in text_string_to_metric_families(exposed) for one in family.samples)
    counted = (one for one in samples if one.name == "cache_requests_total")
    return {one.labels["result"]: one.value for one in counted if one.labels["tier"] == tier}


def share(before: dict[str, float], after: dict[str, float]) -> float:
    """Percent of hits among the look-ups between."""
    made = {name: n - before.get(name, 0.0) for name, n in after.items()}
    return 100 * made.get("hit", 0.0) / max(1.0, sum(made.values()))


@contextmanager
def systems(dim: int) -> Iterator[list[System]]:
    """All of one dimension, up and warm; "hello GET" first."""
    with ExitStack() as stack:
        flags = ["--http-workers", "1", "--threads", "1"]
        if dim != DEMO:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            flags += ["--model", str(write_size(folder, dim))]
        redis = stack.enter_context(RedisServer())
        hello = stack.enter_context(greeting())

        def started(*more: str) -> ServerProcess:
            return stack.enter_context(ServerProcess(*flags, *more, REDIS_URL=redis.url))

        all_forms = forms()
        some, many = (
            {name: all_forms[name] for name in ("base64", other)}
            for other in ("JSON floats", "base64, 64 items")
        )
        answers = started()
        memory = started("--answer-cache-mb", "0")
        shared = started("--answer-cache-mb", "0", "--memory-cache-mb", "0", *PATIENT)
        found = [
            System(BASE, *hello, Request("/")),
            System("hello POST", *hello, Request("/", some["base64"].bodies)),
            *_warm(answers, "answer", some, "l1", "hit-l1"),
            *_warm(memory, "memory", all_forms, "l1", "hit-l1"),
            *_warm(shared, "Redis", many, "redis", "hit-l2"),
        ]
        if dim == DEMO:  # towers of another dimension would need seconds for 64 items
            found += _warm(memory, "picture", _pictures(), "l1", "hit-l1")
            towers = stack.enter_context(ServerProcess(*flags, "--cache", "off"))
            found += _warm(towers, "computed", many, "", "miss")
        yield found


def _embeddings(bodies: tuple[bytes, ...], accept: str = "*/*") -> Request:
    return Request("/v1/embeddings", bodies, accept)


def forms() -> dict[str, Request]:
    """Texts alone and many together, no two requests alike."""
    one, whole = texts(SINGLES), texts(MANY * BATCHES)
    many = [whole[at : at + MANY] for at in range(0, len(whole), MANY)]
    return {
        "base64": _embeddings(bodies(one, "base64")),
        "JSON floats": _embeddings(bodies(one, "float")),
        "octets": _embeddings(bodies(one, "float"), OCTETS),
        "base64, 64 items": _embeddings(bodies(many, "base64")),
        "octets, 64 items": _embeddings(bodies(many, "float"), OCTETS),
    }


def _pictures() -> dict[str, Request]:
    requests = dict[str, Request]()
    for name, size in SIZES.items():
        files = tuple(noise(round((size / 3) ** 0.5), n) for n in range(PICTURES))
        digests = bodies(([{"sha256": sha256(file).hexdigest()}] for file in files), "base64")
        raw = Request("/embed_image?encoding_format=base64", files, content_type="image/png")
        requests |= {f"{name} raw": raw, f"{name} by digest": _embeddings(digests)}
    return requests


def _warm(
    server: ServerProcess, name: str, forms: Mapping[str, Request], tier: str, state: str
) -> list[System]:
    """A system for each form, once all its items are answered from where they shall be."""
    with httpx.Client(base_url=server.url, timeout=120) as client:
        client.get("/livez")
        pid = answering(server)
        for request in forms.values():
            _heat(client, request, state)
    return [System(f"{name} {form}", server.url, pid, one, tier) for form, one in forms.items()]


def _heat(client: httpx.Client, request: Request, state: str) -> None:
    """Writes to Redis come a moment later, so those that missed are asked again."""

    def misses(body: bytes) -> bool:
        answer = client.post(request.path, content=body, headers=request.headers)
        return set(answer.raise_for_status().headers["x-cache"].split(",")) != {state}

    cold: Sequence[bytes] = request.bodies
    ends = time.monotonic() + 300
    while cold:
        if time.monotonic() > ends:
            raise SendError(f"{len(cold)} requests never became {state}")
        cold = list(filter(misses, cold))


def answering(server: ServerProcess) -> int:
    """The process at the other end of a connection that somebody holds open to the server."""
    for pid in server.family():
        ends = psutil.Process(pid).net_connections("tcp")
        if any(e.laddr.port == server.port and e.status == psutil.CONN_ESTABLISHED for e in ends):
            return pid
    raise RuntimeError("no process of the server holds the connection")


def compare(dim: int, connections: int, rounds: int, seconds: float) -> list[System]:
    """Measure one dimension.

    Raises:
        SendError: requests failed, or were no hits.
    """
    with systems(dim) as all_of_them:
        for one in all_of_them:  # a slice each that is thrown away: caches of the processor, pools
            one.slice(min(1.0, seconds), connections)
        for _, one in in_turn(all_of_them, rounds, f"{dim} numbers"):
            one.measure(all_of_them[0], seconds, connections)
    for one in all_of_them:
        if one.hits and min(one.hits) < LEAST_HITS:
            raise SendError(f"{one.name}: {min(one.hits):.2f} % hits")
    return all_of_them


def targets(dim: int, measured: Sequence[System]) -> Iterator[Target]:
    """Those that the table of limits names, and what a picture by digest saves."""
    for one in measured:
        if one.name in LIMITS:
            yield Target(f"{one.name}, {dim} numbers", one.times, LIMITS[one.name])
    spent = {one.name: one.figures["cpu_us"] for one in measured}
    for size, limit in TO_RAW.items():
        if micros := spent.get(f"picture {size} by digest"):
            for beside, most in (("memory base64", TO_TEXT), (f"picture {size} raw", limit)):
                yield Target(f"{size} by digest ÷ {beside}", ratio(micros, spent[beside]), most)


@failing(SendError, httpx.HTTPError, RuntimeError)
def main(arguments: Sequence[str] | None = None) -> int:
    parser = measuring("bench.micro.hits", __doc__, rounds=7, seconds=2.0)
    parser.add_argument("--dims", type=int, nargs="+", default=DIMS, metavar="N")
    parser.add_argument("--concurrency", type=int, default=32, help="kept connections")
    options = parser.parse_args(arguments)
    how = (options.concurrency, options.rounds, options.seconds)
    measured = {dim: compare(dim, *how) for dim in options.dims}
    rows = [COLUMNS, *(one.row(dim) for dim, found in measured.items() for one in found)]
    judged = [target for dim, found in measured.items() for target in targets(dim, found)]
    dims = [{"dim": d, "systems": [one.fields() for one in found]} for d, found in measured.items()]
    fields = {"concurrency": options.concurrency, "load": "bench.load.connection", "dims": dims}
    return concluded("hits", options, rows, judged, fields)


if __name__ == "__main__":
    sys.exit(main())
