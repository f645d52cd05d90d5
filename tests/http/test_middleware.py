"""Middlewares: absent unless asked for, and the maintained ones where they are."""

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from bench.rig.server_process import ServerProcess
from litapi.http.middleware import wrap
from litapi.http.request import Receive, Scope, Send
from litapi.settings import Settings
from tests.support.patience import awaited
from tests.support.picture import picture
from tests.support.stand_in import Reply, stand_in


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive, send


def test_without_settings_nothing_stands_around_the_front() -> None:
    """The hot path pays for no middleware."""
    assert wrap(_app, Settings()) is _app


@pytest.fixture(scope="module")
def posted() -> list[bytes]:
    """What the trace collector was sent."""
    return []


@pytest.fixture(scope="module")
def open_server(posted: list[bytes]) -> Iterator[ServerProcess]:
    """A server with keys that are kept apart, CORS, traces, JSON logs and a line a request."""

    def keep(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        posted.append(body)
        return 200, {}, b""

    with stand_in(keep) as collector:
        flags = [
            *("--api-keys", "first,second", "--cache-per-key", "on", "--max-wrong-keys", "10"),
            *("--cors-origins", "https://a.example", "--otlp-endpoint", f"{collector}/v1/traces"),
            *("--log-format", "json", "--access-log", "on", "--redis-private", "off"),
        ]
        with ServerProcess(*flags) as running:
            yield running


@pytest.fixture
def asker(open_server: ServerProcess) -> Iterator[httpx.Client]:
    """A client without a key."""
    with httpx.Client(base_url=open_server.url, timeout=60) as http:
        yield http


KEY = {"authorization": "Bearer second"}


PREFLIGHT = {"origin": "https://a.example", "access-control-request-method": "POST"}


def test_a_page_of_an_allowed_origin_may_ask(asker: httpx.Client) -> None:
    """The preflight is answered without a key, and the answer names the origin."""
    headers = {**PREFLIGHT, "access-control-request-headers": "authorization"}
    preflight = asker.options("/embed_text", headers=headers)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == PREFLIGHT["origin"]
    headers = {**KEY, "origin": PREFLIGHT["origin"]}
    answer = asker.post("/embed_text", json={"text": "a"}, headers=headers)
    assert answer.status_code == 200
    exposed = answer.headers["access-control-expose-headers"]
    assert {"X-Cache", "X-Embedding-Space"} <= {*exposed.split(", ")}


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("origin", ["https://a.example", "https://b.example"])
def test_a_page_may_ask_into_a_private_network_where_that_is_on(private: bool, origin: str) -> None:
    """Switched off, the preflight only lacks the permission: it is no 400 for that."""
    switch = "on" if private else "off"
    settings = Settings(cors_origins=("https://a.example",), cors_private_network=switch)
    headers = PREFLIGHT | {"origin": origin, "access-control-request-private-network": "true"}
    preflight = TestClient(wrap(_app, settings)).options("/embed_text", headers=headers)
    good = origin == "https://a.example"
    assert preflight.status_code == (200 if good else 400)
    allowed = preflight.headers.get("access-control-allow-private-network")
    assert not good or (allowed == "true") is private


@pytest.mark.parametrize("path", ["/embed_text", "/docs", "/metrics", "/info", "/openapi.json"])
def test_with_keys_set_everything_but_health_asks_for_one(asker: httpx.Client, path: str) -> None:
    """401 in the shared form without a key, and not 401 with one."""
    method = "POST" if path == "/embed_text" else "GET"
    refused, allowed = (
        asker.request(method, path, json={"text": "a"}, headers=key) for key in ({}, KEY)
    )
    assert (refused.status_code, allowed.status_code) == (401, 200)
    assert refused.json()["error"]["code"] == "unauthorized"
    assert asker.get("/readyz").status_code == 200


def test_a_request_makes_a_trace(asker: httpx.Client, posted: list[bytes]) -> None:
    """The span reaches the collector, with the route in it and without the text."""
    secret = "a text that nobody else should read"
    asker.post("/embed_text", json={"text": secret}, headers=KEY)
    awaited(lambda: any(b"/embed_text" in body and b"siglit" in body for body in posted))
    assert not any(secret.encode() in body for body in posted)


def test_a_request_makes_one_json_line_with_its_id_and_without_its_content(
    open_server: ServerProcess, asker: httpx.Client
) -> None:
    """The id that was sent is echoed and logged; the text and the key are not."""
    headers = {**KEY, "x-request-id": "trace-me-77"}
    body = {"text": "words for the model only"}
    answer = asker.post("/embed_text", json=body, headers=headers)
    assert answer.headers["x-request-id"] == "trace-me-77"
    awaited(lambda: "trace-me-77" in open_server.log())
    (line,) = [line for line in open_server.log().splitlines() if "trace-me-77" in line]
    entry = json.loads(line)
    assert (entry["route"], entry["status"], entry["level"]) == ("/embed_text", 200, "INFO")
    assert "words for the model only" not in open_server.log()
    assert "second" not in open_server.log()


def test_a_request_id_that_could_forge_a_line_is_replaced(asker: httpx.Client) -> None:
    """Only plain ids are taken over."""
    headers = {**KEY, "x-request-id": 'a"} {"b'}
    answer = asker.get("/info", headers=headers)
    assert answer.headers["x-request-id"] != headers["x-request-id"]


def test_hundreds_of_wrong_keys_are_refused_and_counted(
    open_server: ServerProcess, asker: httpx.Client
) -> None:
    """401, then 429; the right key passes all the while."""
    wrong = [{"x-api-key": f"wrong{n}"} for n in range(400)]
    codes = [asker.get("/info", headers=one).status_code for one in wrong]
    assert asker.get("/info", headers=KEY).status_code == 200
    assert "siglit_wrong_keys_total 400.0" in asker.get("/metrics", headers=KEY).text
    assert codes[:10] == [401] * 10
    assert codes.count(429) > 200
    refused = asker.get("/info", headers=wrong[0])
    assert refused.json()["error"]["code"] == "too_many_wrong_keys"
    assert open_server.log().count("too many wrong keys from 127.0.0.1") == 1


def test_keys_that_are_kept_apart_learn_nothing_of_one_another(asker: httpx.Client) -> None:
    """What one key had embedded is a miss for another, by digest too, and a hit for itself."""

    def asked(path: str, key: str, **body: Any) -> httpx.Response:
        return asker.post(path, headers={"x-api-key": key}, **body)

    keys = ("first", "first", "second", "second")
    answers = [asked("/embed_text", key, json={"text": "kept apart"}) for key in keys]
    assert [one.headers["x-cache"] for one in answers] == ["miss", "hit-l1"] * 2
    assert len({str(one.json()["embedding"]) for one in answers}) == 1
    file = ("a.png", picture(20), "image/png")
    assert asked("/embed_image", "first", files={"a": file}).status_code == 200
    named = {"sha256": sha256(picture(20)).hexdigest()}
    found = [asked("/embed_image", key, json=named).status_code for key in ("first", "second")]
    assert found == [200, 404]
