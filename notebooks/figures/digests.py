"""What asking by digest saves: bytes and CPU time of a hit by its size, and a folder's re-index."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from bench.load.photo import noise as noise
from bench.micro.client import again
from bench.micro.hits import answering
from bench.rig.server_process import ServerProcess, cpu_seconds
from litapi.client import Client


@dataclass(frozen=True, slots=True)
class Hit:
    """A known picture of `size` bytes, asked for both ways; CPU time in µs of the HTTP process."""

    size: int
    sent_bytes: int
    sent_digest: int
    cpu_bytes: float
    cpu_digest: float


@dataclass(frozen=True, slots=True)
class Pass:
    """A folder embedded again."""

    megabytes: float
    seconds: float


def digest_against_bytes(server: ServerProcess, image: bytes, times: int) -> Hit:
    """Ask so often for one picture, once it is known."""
    digest = {"json": {"sha256": hashlib.sha256(image).hexdigest()}}
    octets: dict[str, Any] = {"content": image, "headers": {"content-type": "image/png"}}
    with httpx.Client(base_url=server.url, timeout=60) as http:
        http.post("/embed_image", **octets).raise_for_status()
        sent_bytes, cpu_bytes = _cost(server, http, octets, times)
        sent_digest, cpu_digest = _cost(server, http, digest, times)
    return Hit(len(image), sent_bytes, sent_digest, cpu_bytes, cpu_digest)


def _cost(
    server: ServerProcess, http: httpx.Client, body: Mapping[str, Any], times: int
) -> tuple[int, float]:
    """Bytes of a request's body, and microseconds of CPU time that it takes."""
    request = http.build_request("POST", "/embed_image", **body)
    pid = answering(server)
    used = cpu_seconds(pid)
    for _ in range(times):
        http.post("/embed_image", **body).raise_for_status()
    return len(request.content), (cpu_seconds(pid) - used) / times * 1e6


def reindexed(url: str, pictures: int, digests: bool) -> Pass:
    """Embed pictures of about 150 KB of which every tenth is new, after the others are known."""
    first = 10**6 if digests else 10**7  # so that neither pass finds what the other one computed
    known = {n: noise(224, first + n) for n in range(pictures) if n % 10}
    images = [known[n] if n in known else noise(224, first + n) for n in range(pictures)]
    with Client(url) as client:
        client.embed_images(known.values())
    sent, seconds = again(url, images, digests)
    return Pass(sent / 1e6, seconds)
