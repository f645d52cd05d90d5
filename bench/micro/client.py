"""siglit's client beside the official one, what asking by digest saves, and one large request.

    python -m bench.micro.client
    python -m bench.micro.client --dim 1152 --rounds 3

Texts: requests of 32 that the server answers from memory, so that the clients are what is measured;
each client in the setting that is fastest for it, found in the first round. Pictures: a thousand
of about 150 KB of which nine tenths are known, embedded again with digests and without, on the demo
checkpoint. The new tenth is decoded and computed in both and is most of what digests leave, so the
same pictures are asked for once more when all are known. A large request: 2,048 texts that no cache
has, of one worker and of two, each of one thread, and the most memory that its HTTP process ever
held; on two cores the second worker shares its core with the HTTP process.
Exit code 0: all targets met; 1: not.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
from openai import OpenAI
from tqdm import tqdm

from bench.load.photo import noise
from bench.micro.hits import answering, texts
from bench.rig.command import Figures, Target, concluded, measuring, per_second, ratio, tabled
from bench.rig.random_checkpoint import write_size
from bench.rig.server_process import ServerProcess
from litapi.client import Client

REQUEST = 32
TEXTS = 64 * REQUEST
LANES = (2, 4, 8)
SIDE = 224  # pixels; noise of that size is a PNG of some 150 KB
MODEL = "bench"
MANY = 2048
LARGE = f"{MANY} texts in a request"
ALONE = ("--http-workers", "1", "--threads", "1")
DIGEST, BYTES = "by digest", "by bytes"
WORKERS = ("one worker", "two workers")
ORDER = (DIGEST, f"{DIGEST}, all known", BYTES, f"{BYTES}, all known")

Embed = Callable[[list[str]], object]


class Counting(httpx.AsyncHTTPTransport):
    """Counts the bytes of bodies that are sent."""

    sent = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.sent += int(request.headers.get("content-length", 0))
        return await super().handle_async_request(request)


def official(url: str, lanes: int) -> Embed:
    """The openai client in threads, which is faster than its asynchronous form."""
    client = OpenAI(base_url=f"{url}/v1", api_key="none")

    def one(texts: list[str]) -> list[list[float]]:
        answer = client.embeddings.create(model=MODEL, input=texts)
        return [row.embedding for row in answer.data]

    def embed(texts: list[str]) -> object:
        parts = [texts[i : i + REQUEST] for i in range(0, len(texts), REQUEST)]
        with ThreadPoolExecutor(lanes) as pool:
            return np.concatenate([np.array(rows, "f4") for rows in pool.map(one, parts)])

    return embed


def rate(embed: Embed, texts: list[str], seconds: float) -> float:
    """Texts a second."""
    return len(texts) * per_second(lambda: embed(texts), seconds)


def again(url: str, images: list[bytes], digests: bool) -> tuple[int, float]:
    """Bytes sent and seconds taken."""
    counting = Counting()
    with Client(url, digests=digests, transport=counting) as client:
        client.info()
        began = time.perf_counter()
        client.embed_images(images)
        return counting.sent, time.perf_counter() - began


def whole(url: str, number: int) -> float:
    """Texts a second of one request; each `number` has texts of its own."""
    asked = [f"text {n} of request {number}" for n in range(MANY)]
    body = {"input": asked, "encoding_format": "base64"}
    began = time.perf_counter()
    answer = httpx.post(f"{url}/v1/embeddings", json=body, timeout=600)
    spent = time.perf_counter() - began
    if len(answer.raise_for_status().json()["data"]) != MANY:
        raise RuntimeError("the answer is not whole")
    return MANY / spent


def most_memory(server: ServerProcess) -> float:
    """Megabytes that its HTTP process held at most, ever."""
    with httpx.Client() as client:
        client.get(f"{server.url}/livez")
        status = Path(f"/proc/{answering(server)}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


def measured(options: argparse.Namespace) -> Figures:
    """What is measured → one of each round; the rates of the two clients first."""
    text, figures = texts(TEXTS), Figures(list)
    with ExitStack() as stack:
        folder = write_size(Path(stack.enter_context(tempfile.TemporaryDirectory())), options.dim)
        wide = stack.enter_context(ServerProcess("--model", str(folder), "--served-name", MODEL))
        demo = stack.enter_context(ServerProcess())
        workers = {
            name: stack.enter_context(ServerProcess(*ALONE, "--text-workers", str(number)))
            for number, name in enumerate(WORKERS, 1)
        }
        own = {n: stack.enter_context(Client(wide.url, in_flight=n, batch=REQUEST)) for n in LANES}
        ways: dict[str, dict[int, Embed]] = {
            "siglit": {n: one.embed_texts for n, one in own.items()},
            "openai": {n: official(wide.url, n) for n in LANES},
        }
        own[LANES[0]].embed_texts(text)  # from here on the server knows them
        best = {  # requests in flight that suit a client best
            name: max(way, key=lambda lanes: rate(way[lanes], text, options.seconds / 3))
            for name, way in ways.items()
        }
        images, made = [noise(SIDE, n) for n in range(options.pictures)], options.pictures
        again(demo.url, images, digests=True)
        for number in tqdm(range(options.rounds), unit="round", disable=None):
            for name, way in ways.items():
                found = rate(way[best[name]], text, options.seconds)
                figures[f"{name}, {best[name]} in flight, texts/s"].append(found)
            for name in ORDER:
                if "all known" not in name:
                    for place in range(0, len(images), 10):
                        images[place], made = noise(SIDE, made), made + 1
                sent, took = again(demo.url, images, digests="digest" in name)
                figures[f"{name}, bytes"].append(sent)
                figures[f"{name}, seconds"].append(took)
            for name, server in workers.items():
                figures[f"{LARGE}, {name}, texts/s"].append(whole(server.url, number))
                figures[f"{LARGE}, {name}, HTTP MB"].append(most_memory(server))
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    parser = measuring("bench.micro.client", __doc__, rounds=5, seconds=3)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--pictures", type=int, default=1000)
    options = parser.parse_args(arguments)
    figures = measured(options)
    rows, fields = tabled(figures, ".4g", "what")
    siglit, openai, *_ = figures
    workers = [f"{LARGE}, {name}, texts/s" for name in WORKERS]
    pairs: tuple[tuple[str, str, str, dict[str, float]], ...] = (
        ("texts/s ÷ openai's", siglit, openai, {"at_least": 2}),
        ("bytes ÷ without digests", f"{DIGEST}, bytes", f"{BYTES}, bytes", {"at_most": 0.15}),
        ("seconds ÷ without digests", f"{DIGEST}, seconds", f"{BYTES}, seconds", {"at_most": 0.35}),
        ("seconds, all known", f"{ORDER[1]}, seconds", f"{ORDER[3]}, seconds", {"at_most": 0.35}),
        ("two workers ÷ one", workers[1], workers[0], {"at_least": 1.8}),
    )
    targets = [
        Target(name, ratio(figures[one], figures[to]), **limit) for name, one, to, limit in pairs
    ]
    fields |= {"dim": options.dim, "pictures": options.pictures}
    return concluded("client", options, rows, targets, fields)


if __name__ == "__main__":
    sys.exit(main())
