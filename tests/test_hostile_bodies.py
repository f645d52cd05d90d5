"""A real server under bodies made to cost it much: others are answered, and memory is bounded."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

import httpx
import pytest

from bench.rig.server_process import ServerProcess, maps_torch, resident_mb
from tests.support.picture import picture

MB = 1 << 20
ROOM = 400  # MB above idle that the HTTP process may take
PATIENCE = 8.0  # seconds: on a machine that does nothing else a wait is a fortieth of this
IMAGE = base64.b64encode(picture(1)).decode()
BODIES: dict[str, tuple[str, Callable[[], bytes], int]] = {
    "captions": (
        "/classify",
        lambda: json.dumps(
            {"image": IMAGE, "labels": ["a" * 100_000] * 3, "template": "{label}" * 10_000}
        ).encode(),
        413,
    ),
    "captions of templates": (
        "/classify",
        lambda: json.dumps(
            {"image": IMAGE, "labels": ["a" * 1000] * 40, "templates": ["{label}" * 30] * 40}
        ).encode(),
        413,
    ),
    "brackets": ("/v1/embeddings", lambda: b'{"input":' + b"[" * (62 * MB), 413),
    "closed brackets": (
        "/v1/embeddings",
        lambda: b'{"input":' + b"[" * (31 * MB) + b"]" * (31 * MB) + b"}",
        413,
    ),
    "lists": ("/embed_text", lambda: b'{"texts":[' + b"[]," * (20 * MB) + b'"a"]}', 413),
    "brackets in a list": (
        "/v1/embeddings",
        lambda: b'{"input":[' + (b"[" * 1000 + b"]" * 1000 + b",") * 31_000 + b"1]}",
        413,
    ),
    "objects": ("/v1/embeddings", lambda: b'{"a":' * (12 * MB) + b"1" + b"}" * 10, 413),
    "letters": ("/embed_image", lambda: b'{"image":"' + "é".encode() * (30 * MB) + b'"}', 422),
    "letters in a part": (
        "/v1/embeddings",
        lambda: b'{"input":[{"image":"' + "é".encode() * (30 * MB) + b'"}]}',
        422,
    ),
    "a name": ("/v1/embeddings", lambda: b'{"input":"a","' + b"n" * (60 * MB) + b'":1}', 400),
    "images": (
        "/embed_image",
        lambda: b'{"images":["' + b'","'.join([base64.b64encode(bytes(15 * MB))] * 3) + b'"]}',
        415,
    ),
}


@pytest.fixture(scope="module")
def alone() -> Iterator[ServerProcess]:
    """A server of its own, with one HTTP process."""
    with ServerProcess("--http-workers", "1") as running:
        yield running


def front_mb(server: ServerProcess) -> float:
    """Resident memory of the largest process that is no worker."""
    found = []
    for pid, command in server.family().items():
        try:
            if "redis" not in command and not maps_torch(pid):
                found.append(resident_mb(pid))
        except OSError:  # it has just ended
            continue
    return max(found)


class Neighbour:
    """Another client, who asks `/livez` all the time; and somebody who looks at the memory."""

    def __init__(self, server: ServerProcess) -> None:
        self.longest = self.peak = 0.0
        self._server = server
        self._over = threading.Event()
        self._threads = [threading.Thread(target=one) for one in (self._ask, self._look)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._server.url, timeout=60) as client:
            while not self._over.wait(0.01):
                began = time.monotonic()
                assert client.get("/livez").status_code == 200
                self.longest = max(self.longest, time.monotonic() - began)

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.peak = max(self.peak, front_mb(self._server))


@pytest.mark.parametrize("kind", BODIES)
def test_a_costly_body_is_refused_and_costs_others_nothing(alone: ServerProcess, kind: str) -> None:
    """With its own status; a neighbour is answered all the while, and memory stays bounded."""
    path, make, status = BODIES[kind]
    body = make()
    idle = front_mb(alone)
    with Neighbour(alone) as neighbour:
        headers = {"content-type": "application/json"}
        answer = httpx.post(alone.url + path, content=body, headers=headers, timeout=120)
    assert answer.status_code == status, answer.text[:300]
    assert len(answer.content) < 10_000
    assert neighbour.longest < PATIENCE
    assert neighbour.peak < idle + ROOM


def test_as_many_texts_as_openai_takes_leave_others_their_turn(alone: ServerProcess) -> None:
    """2,048 texts are embedded by the real tower, while a neighbour is answered."""
    texts = [f"a red circle and {i} squares" for i in range(2048)]
    idle = front_mb(alone)
    with Neighbour(alone) as neighbour:
        answer = httpx.post(f"{alone.url}/v1/embeddings", json={"input": texts}, timeout=120)
    assert answer.status_code == 200
    data = answer.json()["data"]
    alone_row = httpx.post(f"{alone.url}/embed_text", json={"text": texts[2047]}, timeout=60).json()
    assert data[2047]["embedding"] == pytest.approx(alone_row["embedding"], abs=1e-5)
    assert neighbour.longest < PATIENCE
    assert neighbour.peak < idle + ROOM
