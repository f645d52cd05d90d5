"""Access: keys in either header, a rate for each, health always open."""

import os
import time
from base64 import b64encode

import httpx
import pytest

from bench.rig.server_process import ServerProcess
from litapi.errors import RateLimited, ServiceError, TooManyWrongKeys, Unauthorized
from litapi.http.access import MOST_SAID, SLOTS, Access, Rates
from litapi.http.answer import Answer
from litapi.http.request import Incoming
from litapi.keys import read_keys
from tests.support.wire import arrive


def _incoming(client: str = "1.2.3.4", **headers: str) -> Incoming:
    lines = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    return arrive(headers=lines, client=client)


def outcome(access: Access, **request: str) -> type[ServiceError] | None:
    """With what a request is refused; None: it passes."""
    try:
        access.check(_incoming(**request))
    except ServiceError as error:
        return type(error)
    return None


def basic(pair: str) -> str:
    """As a browser sends a user and a password."""
    return f"Basic {b64encode(pair.encode()).decode()}"


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer two"}, {"authorization": "bearer  two "}, {"x_api_key": "one"},
        {"authorization": "Basic abc", "x_api_key": "two"}, {"authorization": basic("anybody:two")},
        {"authorization": basic(":one").replace("Basic", "basic")},
        {"authorization": "Bearer schlüssel"}, {"x_api_key": "schlüssel"},
        {"authorization": basic("anybody:schlüssel")},
    ],
)  # fmt: skip
def test_any_of_the_keys_opens_in_either_header(headers: dict[str, str]) -> None:
    """Bearer in any case, X-API-Key, or the password that a browser asks for; any letters."""
    assert outcome(Access(read_keys(("one", "two", "schlüssel"))), **headers) is None


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"authorization": "Bearer three"}, {"authorization": "Bearer"},
        {"authorization": "two"}, {"x_api_key": ""}, {"x_api_key": "ONE"}, {"x_api_key": "one,two"},
        {"x_api_key": "onö"}, {"authorization": basic("one")},
        {"authorization": basic("one:three")}, {"authorization": basic("one:two:")},
        {"authorization": "Basic one"},
        {"authorization": f"Basic {b64encode(b':' + bytes([255])).decode()}"},
    ],
)  # fmt: skip
def test_anything_else_is_refused(headers: dict[str, str]) -> None:
    """A wrong, partial, empty or missing key is 401."""
    assert outcome(Access(read_keys(("one", "two"))), **headers) is Unauthorized


def test_a_refusal_makes_a_browser_ask_for_the_key() -> None:
    """`/docs` under keys opens in a browser, which can send no header of its own."""
    headers = Answer.error(Unauthorized()).headers
    basic, bearer = [text for name, text in headers if name == b"www-authenticate"]
    assert basic.startswith(b"Basic realm=")
    assert bearer == b"Bearer"


def test_a_key_that_used_its_rate_is_told_to_come_back_and_another_is_not() -> None:
    """Two requests a second for each key: the third at once is refused, and time heals."""
    now = [0.0]
    access = Access(read_keys(("one", "two")), rate=2.0, clock=lambda: now[0])
    assert [outcome(access, x_api_key="one") for _ in range(3)] == [None, None, RateLimited]
    assert outcome(access, x_api_key="two") is None
    now[0] = 0.5
    assert [outcome(access, x_api_key="one") for _ in range(2)] == [None, RateLimited]


def test_over_a_long_time_a_key_gets_its_rate_and_no_more() -> None:
    """A thousand tries over ten seconds at five a second: about fifty pass."""
    now = [0.0]
    access = Access(read_keys(("one",)), rate=5.0, clock=lambda: now[0])
    passed = 0
    for _ in range(1000):
        now[0] += 0.01
        passed += outcome(access, x_api_key="one") is None
    assert 50 <= passed <= 56


def test_without_keys_the_rate_is_for_each_address() -> None:
    """One busy client does not use up another's rate."""
    access = Access((), rate=1.0, clock=lambda: 0.0)
    found = [outcome(access, client=address) for address in ("1.1.1.1", "1.1.1.1", "2.2.2.2")]
    assert found == [None, RateLimited, None]


def test_the_rate_is_the_servers_whatever_the_number_of_its_processes() -> None:
    """Each request on a connection of its own, so that all processes are asked."""
    flags = ("--rate-limit", "5", "--http-workers", "2", "--redis-private", "off")
    with ServerProcess(*flags) as server:
        began, passed, asked = time.monotonic(), 0, 0
        while asked < 60 or time.monotonic() - began < 1.0:
            asked += 1
            passed += httpx.get(f"{server.url}/info", timeout=60).status_code == 200
        most = 5 + 5 * (time.monotonic() - began) + 2
    assert 5 <= passed <= most


def test_wrong_keys_are_limited_by_address_and_right_ones_are_not() -> None:
    """429 after a burst; time heals, and another address is another. No key is no guess."""
    now = [0.0]
    access = Access(read_keys(("one",)), rate=1.0, clock=lambda: now[0], wrong_keys=6)
    assert [outcome(access) for _ in range(100)] == [Unauthorized] * 100
    guesses = [outcome(access, x_api_key="guess") for _ in range(7)]
    assert guesses == [Unauthorized] * 6 + [TooManyWrongKeys]
    assert outcome(access, x_api_key="one") is None
    assert outcome(access, client="5.6.7.8", x_api_key="guess") is Unauthorized
    now[0] = 10.5
    guesses = [outcome(access, x_api_key="guess") for _ in range(2)]
    assert guesses == [Unauthorized, TooManyWrongKeys]


def test_a_trusted_proxy_names_the_address_that_guesses() -> None:
    """Or all who come through a balancer would share one budget; others' word is not taken."""
    access = Access(read_keys(("one",)), clock=lambda: 0.0, wrong_keys=1, forwarders="10.0.0.0/8")

    def guess(client: str, named: str) -> type[ServiceError] | None:
        return outcome(access, client=client, x_api_key="guess", x_forwarded_for=named)

    assert {guess("10.1.1.1", f"9.9.9.{number}") for number in range(5)} == {Unauthorized}
    assert guess("8.8.8.8", "7.7.7.1") is Unauthorized
    assert guess("8.8.8.8", "7.7.7.2") is TooManyWrongKeys


def test_an_ipv6_client_has_one_budget_for_its_network() -> None:
    """It may choose among 2^64 addresses; an IPv4 client seen through IPv6 is one of its own."""
    access = Access((), rate=1.0, clock=lambda: 0.0)
    others = ("2001:db8:1:3::1", "::ffff:1.2.3.4", "::ffff:1.2.3.5")
    clients = ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", *others)
    found = [outcome(access, client=client) for client in clients]
    assert found == [None, RateLimited, None, None, None]


def test_a_log_line_names_a_guessing_address_now_and_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither a line for each guess nor one for each of a thousand addresses."""
    now = [0.0]
    access = Access(read_keys(("one",)), clock=lambda: now[0], wrong_keys=1)

    def guess(address: str) -> None:
        assert outcome(access, client=address, x_api_key="guess") is not None

    for number in range(150):
        guess(f"1.1.1.{number % 3}")
    assert sorted(caplog.messages) == [f"too many wrong keys from 1.1.1.{n}" for n in range(3)]
    for number in range(2000):
        guess(f"2.2.{number // 2}")
    assert len(caplog.messages) == MOST_SAID
    now[0] = 61.0
    for _ in range(3):
        guess("1.1.1.0")
    assert len(caplog.messages) == MOST_SAID + 1


def test_addresses_are_forgotten_before_they_fill_the_memory() -> None:
    """A flood of addresses takes the places of others, and no memory."""
    rates = Rates(lambda: 0.0)
    size = len(rates._names)
    for number in range(5 * SLOTS):
        assert not rates.wait(b"%d" % number, 1.0, 1.0)
    assert len(rates._names) == len(rates._full) == size == SLOTS


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer two"},
        {"authorization": "bearer  two "},
        {"x_api_key": "two"},
        {"authorization": basic("anybody:two")},
        {"authorization": basic("somebody:two"), "x_api_key": "one"},
    ],
)
def test_a_client_is_its_key_however_it_is_written(headers: dict[str, str]) -> None:
    """One key has one share of what clients share, from every address; unchecked it is none."""
    access, unchecked = Access(read_keys(("two",))), _incoming(**headers)
    assert access.client(unchecked).who == b"1.2.3.4"
    incoming = _incoming(client="5.6.7.8", **headers)
    access.check(incoming)
    assert access.client(incoming).name == "key-1"


def test_processes_that_fork_share_one_budget() -> None:
    """What one HTTP process let pass, another counts."""
    access = Access(read_keys(("one",)), rate=5.0, clock=lambda: 0.0)
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            access.check(_incoming(x_api_key="one"))
            access.check(_incoming(x_api_key="one"))
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    access.check(_incoming(x_api_key="one"))
    with pytest.raises(RateLimited):
        access.check(_incoming(x_api_key="one"))
