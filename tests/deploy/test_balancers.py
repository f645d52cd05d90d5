"""The balancers' configuration: it agrees with the service, and the real programs obey it."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import httpx
import pytest

from bench.balance.balancer import BALANCERS, DEPLOY, Balancer, Missing, replaced
from bench.rig.port import free_port
from bench.rig.server_process import ServerProcess
from litapi.errors import BodyTooLarge, NotReady
from litapi.settings import Settings

NGINX = (DEPLOY / "nginx" / "nginx.conf").read_text()
HAPROXY = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
SERVER = (DEPLOY.parent / "litapi" / "server.py").read_text()
SCALE = {"s": 1, "k": 1 << 10, "m": 1 << 20, "": 1}


def number(text: str, pattern: str) -> int:
    """What stands after the name of an option, in seconds or bytes."""
    found = re.search(rf"^\s*{pattern} (\d+)(s|k|m|)\b", text, re.MULTILINE)
    assert found is not None, pattern
    return int(found[1]) * SCALE[found[2]]


def keep_alive() -> int:
    """Seconds after which the service closes an idle connection."""
    return Settings().keep_alive


@pytest.fixture(params=list(BALANCERS.values()), ids=list(BALANCERS))
def kind(request: pytest.FixtureRequest) -> type[Balancer]:
    """Each balancer that is installed here."""
    found: type[Balancer] = request.param
    try:
        found.find()
    except Missing as missing:
        pytest.skip(str(missing))
    return found


@pytest.fixture
def before(kind: type[Balancer], server: ServerProcess) -> Iterator[httpx.Client]:
    """A client of a balancer before one instance that lives and one that does not."""
    with (
        kind([free_port(), server.port]) as balancer,
        httpx.Client(base_url=balancer.url, timeout=60) as client,
    ):
        yield client


def test_nginx_has_the_limits_and_time_outs_of_the_service() -> None:
    """What the service would refuse goes no further, and what it would take is not refused."""
    settings = Settings()
    assert number(NGINX, "client_max_body_size") == settings.max_body_bytes
    assert number(NGINX, "client_header_timeout") == settings.header_timeout
    assert number(NGINX, "client_body_timeout") == settings.body_timeout
    assert number(NGINX, "large_client_header_buffers 4") == settings.max_header_bytes
    assert number(NGINX, "proxy_read_timeout") > settings.timeout
    upstream, server = NGINX.split("server {", 1)
    assert number(upstream, "keepalive_timeout") < keep_alive()
    assert number(server, "keepalive_timeout") == keep_alive()


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
    large = BodyTooLarge()
    assert f'"{large.message}","type":"{large.type}","code":"{large.code}"' in text
    assert f'"type":"{NotReady().type}","code":"{NotReady.code}"' in text


def test_a_dead_instance_costs_no_answer(before: httpx.Client) -> None:
    """Though it is asked first every time, as it never has anything under way."""
    for index in range(20):
        answer = before.post("/embed_text", json={"text": f"balanced {index}"})
        assert answer.status_code == 200, answer.text


def test_metrics_are_not_for_the_world(before: httpx.Client) -> None:
    """Prometheus asks the instances themselves."""
    assert before.get("/metrics").status_code == 404
    assert before.get("/readyz").status_code == 200


def test_a_large_body_passes_and_a_larger_one_is_refused(before: httpx.Client) -> None:
    """The balancer lets through what the service reads, and says the rest like the service."""
    large = {"content-type": "application/json"}
    whole = before.post("/embed_text", content=b" " * (20 << 20) + b'{"text": "a"}', headers=large)
    assert whole.status_code == 200, whole.text
    refused = _unsent(before.base_url, (64 << 20) + 1)
    assert refused.startswith("HTTP/1.1 413")
    assert BodyTooLarge.code in refused


def _unsent(url: httpx.URL, length: int) -> str:
    """The answer to a request that announces a body and never sends it."""
    head = f"POST /embed_text HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n"
    with socket.create_connection((url.host, url.port or 80), timeout=20) as connection:
        connection.sendall(head.encode())
        return connection.recv(65536).decode()


def test_without_an_instance_it_says_when_to_come_back(kind: type[Balancer]) -> None:
    """503 in the service's own form."""
    with kind([free_port(), free_port()]) as balancer:
        answer = httpx.post(f"{balancer.url}/embed_text", json={"text": "a"}, timeout=30)
    assert answer.status_code in (502, 503)
    assert answer.json()["error"]["code"] == NotReady.code
    assert answer.headers["retry-after"] == "2"


def test_only_one_place_is_replaced() -> None:
    """What is measured is what is shipped: a line that is no longer there is an error."""
    assert replaced("a b", "a", "c") == "c b"
    with pytest.raises(ValueError, match="2 places"):
        replaced("a a", "a", "c")
