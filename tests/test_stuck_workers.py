"""Workers that decode for too long, stand still or hold what nobody waits for, on a real server."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from random import Random

import httpx
import pytest

from bench.rig.server_process import ServerProcess
from tests.support.patience import awaited
from tests.support.picture import picture
from tests.support.workers import workers

FLAGS = ("--test-hooks", "on", "--decode-timeout", "1", "--hang-timeout", "4", "--timeout", "240")
SPIN = b"siglit-test: spin"
MB = 1 << 20


@pytest.fixture(scope="module")
def impatient() -> Iterator[ServerProcess]:
    """A server that waits for nobody for long."""
    with ServerProcess(*FLAGS) as running:
        yield running


def embed(server: ServerProcess, *images: bytes) -> httpx.Response:
    files = [("file", (f"{n}", image)) for n, image in enumerate(images)]
    return httpx.post(f"{server.url}/embed_image", files=files, timeout=280)


def gauge(server: ServerProcess, name: str) -> float:
    lines = httpx.get(f"{server.url}/metrics", timeout=60).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_a_picture_that_decodes_for_too_long_is_refused_alone(impatient: ServerProcess) -> None:
    """Its worker is replaced once; its neighbours are answered; the next time it is remembered."""
    mates = [picture(1001), picture(1002)]
    first = embed(impatient, mates[0], SPIN, mates[1]).json()
    assert [(one["index"], one["code"]) for one in first["errors"]] == [(1, "image_too_slow")]
    assert [row is None for row in first["embeddings"]] == [False, True, False]
    before = workers(impatient)
    alone = embed(impatient, SPIN)
    assert alone.status_code == 422
    assert alone.json()["error"]["code"] == "image_too_slow"
    assert workers(impatient) == before
    assert embed(impatient, picture(1003)).status_code == 200


def test_workers_that_are_stopped_are_replaced_and_work_is_done(impatient: ServerProcess) -> None:
    """Nobody is told: the request takes as long as a worker to load, and is answered."""
    awaited(lambda: len(workers(impatient)) == 2)
    stopped = workers(impatient)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    assert embed(impatient, picture(1004)).status_code == 200
    body = {"texts": ["a text for a worker that was stopped"]}
    assert httpx.post(f"{impatient.url}/embed_text", json=body, timeout=280).status_code == 200
    awaited(lambda: not stopped & workers(impatient))


def test_a_worker_whose_device_failed_is_replaced(impatient: ServerProcess) -> None:
    """Whatever it was asked from then on would fail, and `/readyz` would go on saying yes."""
    awaited(lambda: len(workers(impatient)) == 2)
    before, url = workers(impatient), f"{impatient.url}/embed_text"
    pill = httpx.post(url, json={"text": "siglit-test: break"}, timeout=280)
    assert pill.status_code in (422, 500)
    assert httpx.post(url, json={"text": "a red circle"}, timeout=280).status_code == 200
    assert len(workers(impatient) & before) == 1  # the image worker


def leave(server: ServerProcess, body: bytes) -> None:
    """Send a picture and hang up once all of it is sent."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        head = b"POST /embed_image HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        awaited(lambda: gauge(server, 'siglit_items_in_flight{kind="image"}') > 0)


def files_in_memory(server: ServerProcess) -> int:
    """Bytes of the messages that its processes have open."""
    total = 0
    for pid in server.family():
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                if "siglit-message" in os.readlink(link):
                    total += os.stat(link).st_size
    return total


def test_what_clients_sent_and_left_is_freed_while_the_worker_is_stopped() -> None:
    """Counted as long as somebody waits, and gone after: a message is emptied, not forgotten."""
    with ServerProcess() as server:
        held = workers(server)
        for pid in held:
            os.kill(pid, signal.SIGSTOP)
        try:
            for number in range(3):
                leave(server, Random(number).randbytes(8 * MB))
                awaited(lambda: gauge(server, 'siglit_items_in_flight{kind="image"}') == 0)
            assert gauge(server, 'siglit_held_bytes{what="queue"}') == 0
            awaited(lambda: files_in_memory(server) == 0)
        finally:
            for pid in held:
                os.kill(pid, signal.SIGCONT)
        assert embed(server, picture(1005)).status_code == 200
