"""Access: keys in either header, a rate for each, health always open."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from litapi.errors import RateLimited, Unauthorized
from litapi.http.access import SLOTS, Access, Rates
from litapi.http.answer import Answer
from litapi.http.request import Incoming


def _incoming(path: str = "/embed_text", client: str = "1.2.3.4", **headers: str) -> Incoming:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {
        "method": "POST",
        "path": path,
        "headers": raw,
        "client": (client, 5),
    }

    async def receive() -> dict[str, Any]:
        return {}

    return Incoming(scope, receive, 100)


def basic(pair: str) -> str:
    """As a browser sends a user and a password."""
    return f"Basic {b64encode(pair.encode()).decode()}"


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer two"},
        {"authorization": "bearer  two "},
        {"x_api_key": "one"},
        {"authorization": "Basic abc", "x_api_key": "two"},
        {"authorization": basic("anybody:two")},
        {"authorization": basic(":one").replace("Basic", "basic")},
    ],
)
def test_any_of_the_keys_opens_in_either_header(headers: dict[str, str]) -> None:
    """Bearer, whatever its case, X-API-Key, or the password that a browser asks for."""
    Access(("one", "two")).check(_incoming(**headers))


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer schlüssel"},
        {"x_api_key": "schlüssel"},
        {"authorization": basic("anybody:schlüssel")},
    ],
)
def test_a_key_may_have_any_letters(headers: dict[str, str]) -> None:
    """Its UTF-8 bytes are compared, whichever header they come in."""
    Access(("schlüssel",)).check(_incoming(**headers))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer three"},
        {"authorization": "Bearer"},
        {"authorization": "two"},
        {"x_api_key": ""},
        {"x_api_key": "ONE"},
        {"x_api_key": "one,two"},
        {"x_api_key": "onö"},
        {"authorization": basic("one")},
        {"authorization": basic("one:three")},
        {"authorization": basic("one:two:")},
        {"authorization": "Basic one"},
        {"authorization": f"Basic {b64encode(b':' + bytes([255])).decode()}"},
    ],
)
def test_anything_else_is_refused(headers: dict[str, str]) -> None:
    """A wrong, partial, empty or missing key is 401."""
    with pytest.raises(Unauthorized):
        Access(("one", "two")).check(_incoming(**headers))


@pytest.mark.parametrize("path", ["/docs", "/metrics", "/info", "/v1/models", "/v1/embeddings"])
def test_every_route_but_health_needs_the_key(path: str) -> None:
    """Pages and metrics are closed too."""
    with pytest.raises(Unauthorized):
        Access(("one",)).check(_incoming(path))


def test_a_refusal_makes_a_browser_ask_for_the_key() -> None:
    """`/docs` under keys opens in a browser, which can send no header of its own."""
    headers = Answer.error(Unauthorized()).headers
    basic, bearer = [text for name, text in headers if name == b"www-authenticate"]
    assert basic.startswith(b"Basic realm=")
    assert bearer == b"Bearer"


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_health_is_open_without_a_key(path: str) -> None:
    """Probes of an orchestrator carry no key."""
    Access(("one",), rate=1.0, clock=lambda: 0.0).check(_incoming(path))


def test_without_keys_everything_is_open() -> None:
    """The default asks for nothing."""
    access = Access()
    assert access.open
    access.check(_incoming())


def test_a_key_that_used_its_rate_is_told_to_come_back_and_another_is_not() -> None:
    """Two requests a second for each key: the third at once is refused, and time heals."""
    now = [0.0]
    access = Access(("one", "two"), rate=2.0, clock=lambda: now[0])
    for _ in range(2):
        access.check(_incoming(x_api_key="one"))
    with pytest.raises(RateLimited):
        access.check(_incoming(x_api_key="one"))
    access.check(_incoming(x_api_key="two"))
    now[0] = 0.5
    access.check(_incoming(x_api_key="one"))
    with pytest.raises(RateLimited):
        access.check(_incoming(x_api_key="one"))


def test_over_a_long_time_a_key_gets_its_rate_and_no_more() -> None:
    """A thousand tries over ten seconds at five a second: about fifty pass."""
    now = [0.0]
    access = Access(("one",), rate=5.0, clock=lambda: now[0])
    passed = 0
    for _ in range(1000):
        now[0] += 0.01
        try:
            access.check(_incoming(x_api_key="one"))
            passed += 1
        except RateLimited:
            pass
    assert 50 <= passed <= 56


def test_without_keys_the_rate_is_for_each_address() -> None:
    """One busy client does not use up another's rate."""
    access = Access((), rate=1.0, clock=lambda: 0.0)
    access.check(_incoming(client="1.1.1.1"))
    with pytest.raises(RateLimited):
        access.check(_incoming(client="1.1.1.1"))
    access.check(_incoming(client="2.2.2.2"))


def test_a_wrong_key_spends_nobodys_rate() -> None:
    """Guessing does not lock a key's owner out."""
    access = Access(("one",), rate=1.0, clock=lambda: 0.0)
    for _ in range(5):
        with pytest.raises(Unauthorized):
            access.check(_incoming(x_api_key="guess"))
    access.check(_incoming(x_api_key="one"))


def test_addresses_are_forgotten_before_they_fill_the_memory() -> None:
    """A flood of addresses takes the places of others, and no memory."""
    rates = Rates(1.0, 1.0, lambda: 0.0)
    size = len(rates._names)
    for number in range(5 * SLOTS):
        assert rates.spend(b"%d" % number)
    assert len(rates._names) == len(rates._full) == size == SLOTS
