"""The cache as a client sees it: what was asked before costs no worker anything."""

import asyncio
import base64
import re
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from bench.rig.redis_server import RedisServer
from bench.rig.server_process import ServerProcess
from tests.support.desk import b64
from tests.support.picture import picture

# A slow machine may need more than 20 ms for a look-up, and these tests count hits.
PATIENT: dict[str, Any] = {"SIGLIT_REDIS_BUDGET_MS": "1000"}


@pytest.fixture(scope="module")
def one() -> Iterator[ServerProcess]:
    """A server whose towers see nothing but what is asked for, on a Redis as somebody runs it for
    several servers, with no limit set."""
    flags = ("--probe-interval", "3600")
    with RedisServer() as redis, ServerProcess(*flags, REDIS_URL=redis.url, **PATIENT) as running:
        yield running


def _computed(server: ServerProcess) -> int:
    """Items that went through the towers of a server so far."""
    text = httpx.get(f"{server.url}/metrics", timeout=60).text
    return int(sum(map(float, re.findall(r'siglit_batch_items_sum\{kind="\w+"\} (\S+)', text))))


def _embed(server: ServerProcess, parts: list[Any], **headers: str) -> httpx.Response:
    body = {"input": parts, "encoding_format": "base64"}
    answer = httpx.post(f"{server.url}/v1/embeddings", json=body, headers=headers, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer


def _vectors(answer: httpx.Response) -> list[str]:
    return [row["embedding"] for row in answer.json()["data"]]


def test_a_repeat_of_1000_mixed_items_costs_the_workers_nothing(one: ServerProcess) -> None:
    """900 texts and 100 images twice: the second time no tower sees any of them."""
    parts: list[Any] = [f"item {n} of a thousand" for n in range(900)]
    parts += [{"image": b64(picture(2000 + n))} for n in range(100)]
    chunks = [parts[n::5] for n in range(5)]
    first = [_vectors(_embed(one, chunk)) for chunk in chunks]
    before = _computed(one)
    again = [_embed(one, chunk) for chunk in chunks]
    assert _computed(one) == before
    assert [_vectors(answer) for answer in again] == first
    states = ",".join(answer.headers["x-cache"] for answer in again).split(",")
    assert set(states) == {"hit-l1"}
    assert len(states) == 1000


def test_200_equal_requests_of_which_150_hang_up_make_one_computation(one: ServerProcess) -> None:
    """Whoever leaves takes nothing from those who stay: 50 right answers from one computation."""
    url, before = f"{one.url}/v1/embeddings", _computed(one)
    body = {"input": "asked by two hundred", "encoding_format": "base64"}

    async def run() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=60, limits=limits) as client:
            tasks = [asyncio.create_task(client.post(url, json=body)) for _ in range(200)]
            await asyncio.sleep(0)
            for number, task in enumerate(tasks):
                if number % 4:
                    task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
        return [one for one in done if isinstance(one, httpx.Response)]

    answers = [*asyncio.run(run()), _embed(one, ["asked by two hundred"])]
    assert [answer.status_code for answer in answers] == [200] * 51
    (vector,) = {_vectors(answer)[0] for answer in answers}
    assert _computed(one) - before == 1
    alone = np.frombuffer(base64.b64decode(vector), "<f4")
    assert abs(float(np.linalg.norm(alone)) - 1) < 1e-5


def test_an_unlimited_redis_is_warned_about(one: ServerProcess) -> None:
    """Its memory has no limit: the log says so once, without an address."""
    warned = [line for line in one.log().splitlines() if "WARNING" in line]
    assert any("maxmemory" in line for line in warned)
    assert not any("127.0.0.1" in line for line in warned)


def test_info_and_metrics_say_which_tiers_there_are(
    one: ServerProcess, server: ServerProcess
) -> None:
    """A shared Redis, and the private one of a server that was given none."""
    for _ in range(2):  # a miss that another joins, and two hits
        _embed(one, ["counted", "counted"])
    for asked, redis in ((one, "redis (shared)"), (server, "redis (private)")):
        info = httpx.get(f"{asked.url}/info", timeout=60).json()
        assert info["cache"]["tiers"] == ["memory", redis]
    metrics = httpx.get(f"{one.url}/metrics", timeout=60).text
    for name in (
        'tier_info{tiers="memory+redis (shared)"} 1.0',
        *('requests_total{result="hit",tier="l1"}', 'requests_total{result="join",tier="flight"}'),
        *('requests_total{result="miss",tier="redis"}', "lookup_seconds_count"),
        *('bytes{tier="l1"}', "breaker_state 0.0", "write_queue", "written_total"),
    ):
        assert f"cache_{name}" in metrics
