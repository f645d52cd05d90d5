"""The balancers' configuration: it agrees with the service, and the real programs obey it."""

import contextlib
import io
import json
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Self

import httpx
import pytest
from PIL import Image

from bench.rig.balancer import BALANCERS, DEPLOY, Balancer, replaced
from bench.rig.child import Absent
from bench.rig.port import free_port
from bench.rig.server_process import ServerProcess
from litapi.errors import (
    BodyTooLarge,
    HeadersTooLarge,
    HttpInvalid,
    MethodNotAllowed,
    NotReady,
    Overloaded,
    RequestTimeout,
    RouteUnknown,
    ServiceError,
)  # fmt: skip
from litapi.http.connection import Patience
from litapi.settings import Settings
from tests.support.raw import sent_and_heard

NGINX = (DEPLOY / "nginx" / "nginx.conf").read_text()
HAPROXY = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
LARGE_HEADS = {HttpInvalid.code, HeadersTooLarge.code}
SCALE = {"s": 1, "k": 1 << 10, "m": 1 << 20, "": 1}


def number(text: str, pattern: str) -> int:
    """What stands after the name of an option, in seconds or bytes."""
    found = re.search(rf"^\s*{pattern} (\d+)(s|k|m|)\b", text, re.MULTILINE)
    assert found is not None, pattern
    return int(found[1]) * SCALE[found[2]]


@pytest.fixture(params=BALANCERS, ids=lambda one: one.name)
def kind(request: pytest.FixtureRequest) -> Balancer:
    """Each balancer that is installed here."""
    return installed(request.param)


def installed(balancer: Balancer) -> Balancer:
    try:
        balancer.find()
    except Absent as absent:
        pytest.skip(str(absent))
    return balancer


@pytest.fixture
def before(kind: Balancer, server: ServerProcess) -> Iterator[httpx.Client]:
    """A client of a balancer before one instance that lives and one that does not."""
    with (
        kind.before([free_port(), server.port]) as (url, _),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client


def test_nginx_has_the_limits_and_time_outs_of_the_service() -> None:
    """What the service would refuse goes no further, and what it would take is not refused."""
    settings = Settings()
    assert number(NGINX, "client_max_body_size") == settings.max_body_bytes
    assert number(NGINX, "client_header_timeout") == settings.header_timeout
    assert number(NGINX, "client_body_timeout") == settings.body_timeout
    assert number(NGINX, "large_client_header_buffers 4") == settings.max_header_bytes
    assert number(NGINX, "send_timeout") == Patience().unsent_seconds
    assert number(NGINX, "proxy_read_timeout") > settings.timeout
    upstream, server = NGINX.split("server {", 1)
    assert number(upstream, "keepalive_timeout") < settings.keep_alive
    assert number(server, "keepalive_timeout") == settings.keep_alive


def test_haproxy_has_the_limits_and_time_outs_of_the_service() -> None:
    """The same, as far as it can say it."""
    settings = Settings()
    assert f"req.body_size gt {settings.max_body_bytes} " in HAPROXY
    assert number(HAPROXY, "timeout server") > settings.timeout
    assert number(HAPROXY, "timeout http-request") == settings.header_timeout
    assert number(HAPROXY, "http-request wait-for-body time") == settings.body_timeout
    assert number(HAPROXY, "tune.bufsize") > settings.max_header_bytes


@pytest.mark.parametrize("text", [NGINX, HAPROXY], ids=["nginx", "haproxy"])
def test_their_own_errors_have_the_services_form(text: str) -> None:
    """The same codes and sentences, so that a client needs to know one form."""
    errors: tuple[ServiceError, ...] = (
        *(HttpInvalid(), RequestTimeout(), BodyTooLarge(), Overloaded(), ServiceError()),
        *(RouteUnknown(), NotReady("No instance could answer; try again shortly.")),
    )
    if text is NGINX:  # a head too large, and a method that it does not pass on
        errors += (HeadersTooLarge(), MethodNotAllowed())
    for error in errors:
        assert f'"{error.message}","type":"{error.type}","code":"{error.code}"' in text, error.code
    for status in (*(400, 408, 413, 429, 500, 502, 503, 504),):
        assert re.search(rf"(error_page|http-error status)[ \d]* {status} ", text), status


def test_a_dead_instance_costs_no_answer(before: httpx.Client) -> None:
    """Though it is asked first every time, as it never has anything under way."""
    for index in range(20):
        answer = before.post("/embed_text", json={"text": f"balanced {index}"})
        assert answer.status_code == 200, answer.text


SPELLINGS = (
    "/metrics", "/%6detrics", "/%6D%65%74%72%69%63%73", "/METRICS", "/metrics/", "//metrics",
    "/./metrics", "/%2e/metrics", "/x/../metrics", "/docs/../metrics", "/docs/%2e%2e/metrics",
    "/v1/models/..%2f..%2fmetrics", "/static-offline-docs/../metrics",
    "/metrics/../info/../metrics", "/metrics?a=/info", "/metrics;a", "/metrics%00", "/metrics%20",
    "/metrics%3f", "/\\metrics", "http://a/metrics", "http://a/%6detrics", "/litserve/info",
    "/anything",
)  # fmt: skip


@pytest.mark.parametrize("path", SPELLINGS)
def test_metrics_are_not_for_the_world(before: httpx.Client, path: str) -> None:
    """Prometheus asks the instances themselves; no spelling of the path goes past the rule."""
    status, body = _said(before.base_url, f"GET {path} HTTP/1.1\r\nhost: a\r\n")
    assert 400 <= status < 500
    codes = (RouteUnknown.code, HttpInvalid.code, "model_not_found")
    assert json.loads(body)["error"]["code"] in codes


def test_every_route_but_metrics_passes(before: httpx.Client) -> None:
    """A route that is added to the service has to be added here; a trailing slash is the same."""
    paths = before.get("/openapi.json").json()["paths"]
    assert "/metrics" in paths
    for path in [*(paths.keys() - {"/metrics"}), "/docs", "/redoc"]:
        shown = path.replace("{model}", "google/siglip2")
        for text in (NGINX, HAPROXY):
            assert re.search(_public(text), shown), shown
            assert re.search(_public(text), f"{shown}/"), shown
        answer = before.get(shown)
        edges = answer.headers.get("x-request-id") is None and not answer.is_success
        assert not edges, (shown, answer.text)


def _public(text: str) -> str:
    """Which paths go through, as one expression."""
    found = re.search(r"\^/\(embed.*?/\?\$", text)
    assert found is not None
    return found[0] + "|^/(v1/models|docs|redoc|static-offline-docs)/"


def _dialled(url: httpx.URL) -> socket.socket:
    return socket.create_connection((url.host, url.port or 80), timeout=120)


def _said(url: httpx.URL, head: str, then: bytes = b"") -> tuple[int, bytes]:
    """Status and body of the answer to lines that no client library would send."""
    with _dialled(url) as connection:
        heard = sent_and_heard(connection, f"{head}connection: close\r\n\r\n".encode() + then)
    status, _, rest = heard.partition(b"\r\n")
    return int(status.split()[1]), rest.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(
    ("head", "codes"),
    [
        ("GET /livez HTTP/1.1\r\n", {HttpInvalid.code, "alive"}),
        ("GET /livez HTTP/1.1\r\nhost: a\r\nno colon\r\n", {HttpInvalid.code, "alive"}),
        (f"GET /{'a' * 300_000} HTTP/1.1\r\nhost: a\r\n", LARGE_HEADS),
        (f"GET /livez HTTP/1.1\r\nhost: a\r\nx: {'a' * 300_000}\r\n", LARGE_HEADS),
        ("POST /embed_text HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n", {HttpInvalid.code}),
    ],
)
def test_what_it_cannot_read_is_refused_in_the_services_form(
    kind: Balancer, before: httpx.Client, head: str, codes: set[str]
) -> None:
    """An error is JSON with a code; only HAProxy's parser has words that cannot be changed."""
    status, body = _said(before.base_url, head)
    if kind.name == "haproxy" and body.startswith(b"<html>"):
        assert status == 400
        return
    content = json.loads(body)
    code = content["error"]["code"] if status >= 400 else content["status"]
    assert code in codes


@pytest.mark.parametrize("sent", ["", "content-length: 99\r\n\r\n{"], ids=["head", "body"])
def test_what_stands_still_is_cut(kind: Balancer, before: httpx.Client, sent: str) -> None:
    """As by the service: the connection ends, without a word or with an error of its form."""
    head = f"POST /embed_text HTTP/1.1\r\nhost: a\r\n{sent}"
    with _dialled(before.base_url) as connection:
        heard = sent_and_heard(connection, head.encode())
    assert not heard or heard.startswith(b"HTTP/1.1 408 ")
    if heard and (sent or kind.name != "haproxy"):  # whose parser has words of its own
        assert RequestTimeout.code.encode() in heard


def test_one_address_keeps_few_dripping_bodies_open_at_nginx() -> None:
    """nginx knows no least rate; whoever drips is told to come back, and others are answered."""
    nginx = installed(BALANCERS[0])
    most = number(NGINX, "limit_conn clients")
    head = b"POST /embed_text HTTP/1.1\r\nhost: a\r\ncontent-length: 99\r\n\r\n{"
    with nginx.before([free_port()]) as (address, _), contextlib.ExitStack() as stack:
        url = httpx.URL(address)
        told = b""
        for _ in range(most + 8):
            connection = stack.enter_context(_dialled(url))
            connection.sendall(head)
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                told = told or connection.recv(65536)
        connection.settimeout(60)
        told = told or connection.recv(65536)
    assert b" 429 " in told
    assert Overloaded.code.encode() in told
    assert b"Retry-After: 1" in told


def test_an_upgrade_is_not_offered_to_an_instance(kind: Balancer) -> None:
    """Nor is a body taken for the next request: what arrives has no Upgrade and its whole body."""
    body = b"GET /livez HTTP/1.1\r\nhost: evil\r\n"
    lines = "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMA\r\n"
    head = f"POST /embed_text HTTP/1.1\r\nhost: a\r\n{lines}content-length: {len(body)}\r\n"
    with _Instance() as instance, kind.before([instance.port]) as (address, _):
        url = httpx.URL(address)
        with _dialled(url) as connection:
            connection.sendall(f"{head}\r\n".encode() + body)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    [heard] = [one for one in instance.heard if b"embed_text" in one]
    got, _, rest = heard.partition(b"\r\n\r\n")
    assert b"upgrade" not in got.lower()
    assert b"http2-settings" not in got.lower()
    assert rest == body


class _Instance:
    """Somebody who answers all requests alike, and keeps what it heard."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            heard = b""
            while b"\r\n\r\n" not in heard or (b"embed_text" in heard and b"evil\r\n" not in heard):
                piece = connection.recv(65536)
                if not piece:
                    break
                heard += piece
            self.heard.append(heard)
            connection.sendall(
                b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"
            )


def test_a_large_body_passes_and_a_larger_one_is_refused(before: httpx.Client) -> None:
    """The balancer lets through what the service reads, and says the rest like the service."""
    bitmap = io.BytesIO()
    Image.new("RGB", (2600, 2600)).save(bitmap, "BMP")  # 20 MB
    large = {"content-type": "image/bmp"}
    whole = before.post("/embed_image", content=bitmap.getvalue(), headers=large)
    assert whole.status_code == 200, whole.text
    refused = _unsent(before.base_url, (64 << 20) + 1)
    assert refused.startswith("HTTP/1.1 413")
    assert BodyTooLarge.code in refused


def _unsent(url: httpx.URL, length: int) -> str:
    """The answer to a request that announces a body and never sends it."""
    head = f"POST /embed_text HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n"
    with _dialled(url) as connection:
        connection.sendall(head.encode())
        return connection.recv(65536).decode()


def test_without_an_instance_it_says_when_to_come_back(kind: Balancer) -> None:
    """503 in the service's own form."""
    with kind.before([free_port(), free_port()]) as (url, _):
        answer = httpx.post(f"{url}/embed_text", json={"text": "a"}, timeout=30)
    assert answer.status_code in (502, 503)
    assert answer.json()["error"]["code"] == NotReady.code
    assert answer.headers["retry-after"] == "2"


def test_one_that_is_not_installed_is_named() -> None:
    """With the package that brings it."""
    absent = replace(BALANCERS[0], name="nginx-that-is-not-there")
    with pytest.raises(Absent, match="apt-get install nginx-light"), absent.before([80]):
        pass


def test_only_one_place_is_replaced() -> None:
    """What is measured is what is shipped: a line that is no longer there is an error."""
    assert replaced("a b", "a", "c") == "c b"
    with pytest.raises(ValueError, match="2 places"):
        replaced("a a", "a", "c")
