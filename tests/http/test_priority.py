"""`X-Priority` and `X-Timeout-Ms`: what they say, what is refused, and what a real server does."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from bench.rig.server_process import ServerProcess
from cache import Entry, MemoryTier, State, VectorCache
from litapi.errors import DeadlineExceeded, RequestInvalid
from litapi.http.request import ClientGone
from tests.support.picture import picture
from tests.support.wire import Wire, arrive

pytestmark = pytest.mark.anyio

KEYS = ("--api-keys", "acme:k1:bulk,web:k2:interactive", "--key-limits", "* megapixels=0.02")


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server with a bulk key and an interactive one."""
    with ServerProcess("--redis-private", "off", *KEYS) as running:
        yield running


def ask(client: httpx.Client, key: str, *texts: str, **headers: str) -> httpx.Response:
    """A request for these texts."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post("/embed_text", json={"texts": texts}, headers={"x-api-key": key, **named})


@pytest.mark.parametrize(
    ("given", "bulk"), [("interactive", False), ("bulk", True), ("Bulk", True), (None, False)]
)
def test_the_class_is_what_the_header_says(given: str | None, bulk: bool) -> None:
    """Interactive where it says nothing."""
    incoming = arrive(b"", {} if given is None else {"x-priority": given})
    incoming.wish()
    assert incoming.bulk == bulk


@pytest.mark.parametrize(
    ("header", "value"),
    [("x-priority", value) for value in ("", "high", "bulk,bulk", "0")]
    + [("x-timeout-ms", value) for value in ("", "0", "-1", "1.5", "1e3", "12345678", "soon")],
)
def test_another_class_or_time_is_refused_by_name(header: str, value: str) -> None:
    """A misspelt wish must not be no wish."""
    with pytest.raises(RequestInvalid) as caught:
        arrive(b"", {header: value}).wish()
    assert caught.value.param is not None
    assert caught.value.param.lower() == header


async def test_a_request_of_its_own_time_is_over_when_that_is() -> None:
    """And when its client leaves before that."""
    late = arrive(b"", {"x-timeout-ms": "20"})
    late.wish()
    assert await late.gone() is DeadlineExceeded
    early = arrive(Wire([b""], gone_after=0), {"x-timeout-ms": "60000"})
    early.wish()
    assert await asyncio.wait_for(early.gone(), 60) is ClientGone


async def test_interactive_work_does_not_wait_for_the_same_item_in_bulk() -> None:
    """It is computed again at once; later requests join that, and bulk joins anything."""
    cache, gates, computed = VectorCache(4, MemoryTier(1 << 20)), [asyncio.Event()] * 2, []
    entry = Entry(b"\0\0\x80\x3f" + bytes(12), 1)

    async def embed(bulk: bool) -> State:
        async def compute(positions: list[int]) -> list[Entry | Exception]:
            computed.append(bulk)
            await gates[bulk].wait()
            return [entry for _ in positions]

        found = cache.peek([b"k"])
        return (await cache.resolve([b"k"], found, compute, bulk=bulk)).states[0]

    tasks = []
    for bulk in (True, True, False, False, True):
        tasks.append(asyncio.create_task(embed(bulk)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert computed == [True, False]
    gates[0].set()
    states = [await task for task in tasks]
    assert states == [State.MISS, State.JOIN, State.MISS, State.JOIN, State.JOIN]


def test_class_and_client_are_said_and_the_key_never(
    server: ServerProcess, client: httpx.Client
) -> None:
    """In `Server-Timing` and in the metrics; a bulk key stays bulk whatever it asks for."""
    said = [
        ask(client, "k1", "a", x_priority="interactive"),
        ask(client, "k2", "b"),
        ask(client, "k2", "c", x_priority="bulk"),
    ]
    assert [one.status_code for one in said] == [200] * 3
    described = [one.headers["server-timing"].split('desc="')[1].split('"')[0] for one in said]
    assert described == ["bulk acme", "interactive web", "bulk web"]
    metrics = client.get("/metrics", headers={"x-api-key": "k1"}).text
    for name, who in (one.split() for one in described):
        assert f'siglit_client_items_total{{class="{name}",client="{who}"}} 1.0' in metrics
    assert "k1" not in metrics + server.log()


def test_a_request_that_cannot_be_done_in_its_time_gets_504(client: httpx.Client) -> None:
    """Beside work that takes longer it is refused at once, with the estimate."""
    texts = [f"long {n}" for n in range(1500)]
    with ThreadPoolExecutor(2) as pool:
        busy = [pool.submit(ask, client, "k1", *texts[n::2]) for n in range(2)]
        refused = ask(client, "k1", *(f"late {n}" for n in range(400)), x_timeout_ms="5")
        assert refused.status_code == 504
        assert refused.json()["error"]["code"] == "deadline_exceeded"
        assert [one.result().status_code for one in busy] == [200, 200]
    assert ask(client, "k2", "in time", x_timeout_ms="30000").status_code == 200


def test_megapixels_are_limited_by_what_images_say(client: httpx.Client) -> None:
    """A second's worth at once, then 429 with the time to come back."""
    headers = {"x-api-key": "k2", "content-type": "application/octet-stream"}
    found: list[int] = []
    while 429 not in found and len(found) < 100:
        answer = client.post("/embed_image", content=picture(len(found)), headers=headers)
        found.append(answer.status_code)
    assert found[0] == 200
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error"]["code"] == "rate_limited"
