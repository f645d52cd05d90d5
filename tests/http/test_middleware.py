"""Middlewares: absent unless asked for, and the maintained ones where they are."""

import json
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from starlette.testclient import TestClient

from bench.rig.server_process import ServerProcess
from litapi.http.middleware import wrap
from litapi.http.request import Receive, Scope, Send
from litapi.settings import Settings
from tests.support.patience import awaited
from tests.support.picture import picture


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive, send


def test_without_settings_nothing_stands_around_the_front() -> None:
    """The hot path pays for no middleware."""
    assert wrap(_app, Settings()) is _app


@pytest.fixture(scope="module")
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """A stand-in for a trace collector: keeps what is posted to it."""
    posted: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its own name
            """Quiet."""

    listener = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listener.server_port}/v1/traces", posted
    listener.shutdown()


@pytest.fixture(scope="module")
def open_server(collector: tuple[str, list[bytes]]) -> Iterator[ServerProcess]:
    """A server with keys that are kept apart, CORS, traces, JSON logs and a line a request."""
    flags = [
        *("--api-keys", "first,second", "--cache-per-key", "on", "--max-wrong-keys", "10"),
        *("--cors-origins", "https://a.example"),
        *("--otlp-endpoint", collector[0]),
        *("--log-format", "json", "--access-log", "on"),
        *("--redis-private", "off"),
    ]
    with ServerProcess(*flags) as running:
        yield running


KEY = {"authorization": "Bearer second"}


def test_a_page_of_an_allowed_origin_may_ask(open_server: ServerProcess) -> None:
    """The preflight is answered without a key, and the answer names the origin."""
    headers = {
        "origin": "https://a.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    preflight = httpx.options(f"{open_server.url}/embed_text", headers=headers, timeout=60)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://a.example"
    answer = httpx.post(
        f"{open_server.url}/embed_text",
        json={"text": "a"},
        headers={**KEY, "origin": "https://a.example"},
        timeout=60,
    )
    assert answer.status_code == 200
    exposed = answer.headers["access-control-expose-headers"]
    assert {"X-Cache", "X-Embedding-Space"} <= {*exposed.split(", ")}


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("origin", ["https://a.example", "https://b.example"])
def test_a_page_may_ask_into_a_private_network_where_that_is_switched_on(
    private: bool, origin: str
) -> None:
    """Switched off, the preflight only lacks the permission: it is no 400 for that."""
    switch = "on" if private else "off"
    settings = Settings(cors_origins=("https://a.example",), cors_private_network=switch)
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-private-network": "true",
    }
    preflight = TestClient(wrap(_app, settings)).options("/embed_text", headers=headers)
    good = origin == "https://a.example"
    assert preflight.status_code == (200 if good else 400)
    allowed = preflight.headers.get("access-control-allow-private-network")
    assert not good or (allowed == "true") is private


@pytest.mark.parametrize("path", ["/embed_text", "/docs", "/metrics", "/info", "/openapi.json"])
def test_with_keys_set_everything_but_health_asks_for_one(
    open_server: ServerProcess, path: str
) -> None:
    """401 in the shared form without a key, and not 401 with one."""
    method = "POST" if path == "/embed_text" else "GET"
    refused = httpx.request(method, f"{open_server.url}{path}", json={"text": "a"}, timeout=60)
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "unauthorized"
    allowed = httpx.request(
        method, f"{open_server.url}{path}", json={"text": "a"}, headers=KEY, timeout=60
    )
    assert allowed.status_code == 200
    assert httpx.get(f"{open_server.url}/readyz", timeout=60).status_code == 200


def test_a_request_makes_a_trace(
    open_server: ServerProcess, collector: tuple[str, list[bytes]]
) -> None:
    """The span reaches the collector, with the route in it and without the text."""
    secret = "a text that nobody else should read"
    httpx.post(f"{open_server.url}/embed_text", json={"text": secret}, headers=KEY, timeout=60)
    awaited(lambda: any(b"/embed_text" in body for body in collector[1]))
    assert any(b"/embed_text" in body and b"siglit" in body for body in collector[1])
    assert not any(secret.encode() in body for body in collector[1])


def test_a_request_makes_one_json_line_with_its_id_and_without_its_content(
    open_server: ServerProcess,
) -> None:
    """The id that was sent is echoed and logged; the text and the key are not."""
    headers = {**KEY, "x-request-id": "trace-me-77"}
    body = {"text": "words for the model only"}
    answer = httpx.post(f"{open_server.url}/embed_text", json=body, headers=headers, timeout=60)
    assert answer.headers["x-request-id"] == "trace-me-77"
    awaited(lambda: "trace-me-77" in open_server.log())
    lines = [line for line in open_server.log().splitlines() if "trace-me-77" in line]
    assert len(lines) == 1
    entry = json.loads(lines[0])
    assert (entry["route"], entry["status"], entry["level"]) == ("/embed_text", 200, "INFO")
    assert "words for the model only" not in open_server.log()
    assert "second" not in open_server.log()


def test_a_request_id_that_could_forge_a_line_is_replaced(open_server: ServerProcess) -> None:
    """Only plain ids are taken over."""
    headers = {**KEY, "x-request-id": 'a"} {"b'}
    answer = httpx.get(f"{open_server.url}/info", headers=headers, timeout=60)
    assert answer.headers["x-request-id"] != headers["x-request-id"]


def test_hundreds_of_wrong_keys_are_refused_and_counted(open_server: ServerProcess) -> None:
    """401, then 429; the right key passes all the while."""
    with httpx.Client(base_url=open_server.url, timeout=60) as client:
        wrong = [{"x-api-key": f"wrong{n}"} for n in range(400)]
        codes = [client.get("/info", headers=one).status_code for one in wrong]
        assert client.get("/info", headers=KEY).status_code == 200
        counted = client.get("/metrics", headers=KEY).text
        refused = client.get("/info", headers=wrong[0])
    assert codes[:10] == [401] * 10
    assert codes.count(429) > 200
    assert refused.json()["error"]["code"] == "too_many_wrong_keys"
    assert "siglit_wrong_keys_total 400.0" in counted
    assert open_server.log().count("too many wrong keys from 127.0.0.1") == 1


def test_keys_that_are_kept_apart_learn_nothing_of_one_another(open_server: ServerProcess) -> None:
    """What one key had embedded is a miss for another, by digest too, and a hit for itself."""

    def asked(key: str) -> tuple[str, str]:
        body, headers = {"text": "kept apart"}, {"x-api-key": key}
        url = f"{open_server.url}/embed_text"
        answer = httpx.post(url, json=body, headers=headers, timeout=60)
        return answer.headers["x-cache"], str(answer.json()["embedding"])

    states, vectors = zip(*map(asked, ["first", "first", "second", "second"]), strict=True)
    assert states == ("miss", "hit-l1") * 2
    assert len(set(vectors)) == 1
    data, found = picture(20), {}
    url, named = f"{open_server.url}/embed_image", {"sha256": sha256(data).hexdigest()}
    png = {"x-api-key": "first", "content-type": "image/png"}
    assert httpx.post(url, content=data, headers=png, timeout=60).status_code == 200
    for key in ("first", "second"):
        answer = httpx.post(url, json=named, headers={"x-api-key": key}, timeout=60)
        found[key] = answer.status_code
    assert found == {"first": 200, "second": 404}
