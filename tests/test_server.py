"""EmbedServer's parts that can be looked at without starting it."""

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest

from bench.faults.vitals import http_processes
from bench.rig.redis_server import RedisServer
from bench.rig.server_process import ServerProcess
from litapi.checkpoint import DEMO, Checkpoint
from litapi.devices import visible_devices
from litapi.server import _require_alike, banner, bulk_plan, device_plan
from litapi.serving import Service
from litapi.settings import Settings, StartError
from tests.support.certificate import certify
from tests.support.patience import awaited


def test_each_tower_gets_its_workers_on_every_device() -> None:
    """Two devices, two text workers and one image worker on each; a CPU is one device."""
    plan = device_plan(Settings(devices="cpu", image_workers=3))
    assert plan == {"text": ["cpu"], "image": ["cpu"] * 3}
    both = ["cuda:0", "cuda:1"]
    plan = device_plan(Settings(devices=",".join(both), text_workers=2))
    assert plan == {"text": both * 2, "image": both}


def test_bulk_has_workers_of_its_own_on_a_cpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as the others; a card, a quota of the CPU, or who declines them has none."""
    plan = {"text": ["cpu", "cpu"], "image": ["cpu"]}
    monkeypatch.setattr("litapi.server.keeps_order", lambda: True)
    assert bulk_plan(Settings(), plan) == plan
    assert bulk_plan(Settings(bulk_workers="off"), plan) == {}
    assert bulk_plan(Settings(), {"text": ["cuda:0"], "image": ["cuda:0", "cpu"]}) == {}
    monkeypatch.setattr("litapi.server.keeps_order", lambda: False)
    assert bulk_plan(Settings(), plan) == {}


TWO = "GPU 0: H200 (UUID: GPU-1)\n  MIG 1g (UUID: MIG-2)\nGPU 1: H200 (UUID: GPU-3)\n"


@pytest.mark.parametrize(
    ("listed", "visible", "devices"),
    [
        (None, None, ["cpu"]), ("No devices were found\n", None, ["cpu"]),
        (TWO, None, ["cuda:0", "cuda:1"]), (None, "", ["cpu"]), (None, "-1", ["cpu"]),
        (None, "3", ["cuda:0"]), (None, "GPU-a,MIG-b", ["cuda:0", "cuda:1"]),
    ],
)  # fmt: skip
def test_devices_are_counted_from_the_driver_or_those_that_are_visible(
    monkeypatch: pytest.MonkeyPatch, listed: str | None, visible: str | None, devices: list[str]
) -> None:
    """Two lines that begin with GPU are two devices; MIG slices below them are not more. Indexes,
    UUIDs and MIG names of visible ones all count, and are numbered from zero as torch does."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    cards = subprocess.CompletedProcess([], 0, stdout=listed)
    driver = Mock(side_effect=FileNotFoundError if listed is None else [cards])
    monkeypatch.setattr(subprocess, "run", driver)
    assert visible_devices() == devices


def test_with_a_certificate_it_serves_https_and_nothing_else(tmp_path: Path) -> None:
    """Vectors, early refusals and the drain work over TLS; plain HTTP gets no answer."""
    path, key = map(str, certify(tmp_path))
    trust = ssl.create_default_context(cafile=path)
    server = ServerProcess("--tls-cert", path, "--tls-key", key, "--header-timeout", "2")
    server.start(wait=False)
    try:
        url = f"https://127.0.0.1:{server.port}"
        with httpx.Client(base_url=url, verify=trust, timeout=60) as client:
            awaited(lambda: _is_ready(client), 300)
            answer = client.post("/embed_text", json={"text": "a red circle"})
            again = client.post("/embed_text", json={"text": "a red circle"})
            assert (answer.status_code, again.status_code) == (200, 200)
            assert answer.json()["embedding"] == again.json()["embedding"]
            large = client.post("/embed_text", content=bytes(80 << 20))
            assert large.json()["error"]["code"] == "body_too_large"
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{url}/livez", timeout=60)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{server.port}/livez", timeout=60)
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as mute:
            assert mute.recv(1) == b"", "a handshake that never comes is waited for"
        assert f"{url}/docs" in server.log()
        assert server.stop() == 0
    finally:
        server.kill()


def test_any_http_process_tells_what_is_in_flight_and_killed_ones_hold_up_no_end() -> None:
    """An autoscaler reads one of them; nobody waits for what they were answering when killed."""
    flags = ("--test-hooks", "on", "--http-workers", "2", "--redis-private", "off")
    with ServerProcess(*flags, "--drain-timeout", "600") as server:
        killed = set(http_processes(server))
        with ThreadPoolExecutor(6) as clients, httpx.Client(timeout=60) as scraper:
            slow = [{"texts": [f"siglit-test: slow {n}{part}" for part in "abc"]} for n in range(3)]
            url = f"{server.url}/embed_text"
            asked = [clients.submit(httpx.post, url, json=body, timeout=60) for body in slow]
            awaited(lambda: _in_flight(scraper.get(f"{server.url}/metrics").text) == 9)
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            assert all(isinstance(one.exception(60), httpx.TransportError) for one in asked)
        awaited(lambda: set(http_processes(server)) - killed)
        assert server.stop(within=300) == 0


def test_an_http_process_that_dies_while_the_server_drains_holds_up_no_end() -> None:
    """Nobody supervises any more by then, and what it was answering is lost with it."""
    flags = ("--test-hooks", "on", "--http-workers", "1", "--redis-private", "off")
    with ServerProcess(*flags, "--drain-timeout", "600") as server:
        (dies,) = http_processes(server)
        with ThreadPoolExecutor(1) as clients, httpx.Client(timeout=60) as scraper:
            slow = {"texts": [f"siglit-test: slow {part}" for part in "abc"]}
            asked = clients.submit(httpx.post, f"{server.url}/embed_text", json=slow, timeout=60)
            awaited(lambda: _in_flight(scraper.get(f"{server.url}/metrics").text) == 3)
            os.kill(server.pid, signal.SIGTERM)
            awaited(lambda: scraper.get(f"{server.url}/readyz").status_code == 503)
            os.kill(dies, signal.SIGKILL)
            assert isinstance(asked.exception(60), httpx.TransportError)
        assert server.process is not None
        assert server.process.wait(300) == 0


def _in_flight(exposed: str) -> float:
    (line,) = re.findall(r'^siglit_items_in_flight\{kind="text"\} (\S+)$', exposed, re.MULTILINE)
    return float(line)


def test_a_wrong_redis_password_is_said_once_in_info_and_in_metrics() -> None:
    """Of several HTTP processes too; vectors are served all the while."""
    with RedisServer() as redis:
        redis.command("ACL", "SETUSER", "default", "resetpass", ">right")
        url = redis.url.replace("redis://", "redis://:wrong@")
        with ServerProcess("--http-workers", "2", REDIS_URL=url) as server:
            for number in range(20):
                body = {"text": f"text {number}"}
                answer = httpx.post(f"{server.url}/embed_text", json=body, timeout=120)
                assert answer.status_code == 200
            info = httpx.get(f"{server.url}/info", timeout=60).json()
            exposed = httpx.get(f"{server.url}/metrics", timeout=60).text
            log = server.log()
    sentence = "Redis refuses the user or the password that the Redis URL names."
    assert info["cache"]["problems"] == [sentence]
    assert log.count(sentence) == 1
    assert "did not answer" not in log
    assert 'cache_problem_info{reason="wrong_password",side="read"} 1.0' in exposed
    assert "wrong@" not in log


def test_devices_that_compute_differently_are_refused() -> None:
    """One key would mean two vectors: the sentence names the option that settles it."""
    alike = [{"tower": "text", "arithmetic": "bfloat16"}] * 2
    other = {"tower": "text", "arithmetic": "float32"}
    _require_alike("text", [*alike, {"tower": "image", "arithmetic": "float32"}])
    with pytest.raises(StartError, match="--text-precision"):
        _require_alike("text", [*alike, other])


def _is_ready(client: httpx.Client) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return client.get("/readyz").status_code == 200
    return False


def test_the_banner_says_what_is_served_and_where() -> None:
    """Model, precision × workers, devices, cache, docs, and that the demo knows shapes only."""
    service = Service(Settings(port=9123), Checkpoint.open(DEMO))
    service.precision = {"text": "bfloat16", "image": "float32"}
    service.workers = [{"tower": tower, "device": "cpu"} for tower in ("text", "image", "image")]
    service.cache_tiers = ("memory", "redis (private)")
    text = banner(service)
    for said in (
        *("siglit-demo", "text bfloat16 × 1 · image float32 × 2 on cpu", "drawn shapes only"),
        *("memory → redis (private)", "http://localhost:9123/docs"),
    ):
        assert said in text
