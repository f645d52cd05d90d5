"""Bulk has workers of its own on a CPU, which the kernel puts behind all others."""

import os
import signal
from collections.abc import Iterator

import httpx
import pytest

from bench.rig.server_process import ServerProcess
from litapi.process import keeps_order
from tests.support.patience import awaited
from tests.support.workers import idle, workers

pytestmark = pytest.mark.skipif(not keeps_order(), reason="a quota below the cores of this machine")


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """With nothing in front of the towers."""
    with ServerProcess("--cache", "off", "--timeout", "240", "--test-hooks", "on") as running:
        yield running


def texts(server: ServerProcess, name: str, *texts: str) -> httpx.Response:
    headers, body = {"x-priority": name}, {"texts": list(texts)}
    return httpx.post(f"{server.url}/embed_text", json=body, headers=headers, timeout=280)


def idlers(server: ServerProcess) -> list[bool]:
    """Of each worker that has loaded, whether it is one of those."""
    return sorted(map(idle, workers(server)))


def test_a_worker_for_bulk_comes_with_the_first_bulk_request(server: ServerProcess) -> None:
    """Only of that tower, of idle priority, with the same vectors; who never asks pays for none."""
    asked = "a red circle", "a blue square"
    interactive = texts(server, "interactive", *asked)
    assert idlers(server) == [False, False]
    bulk = texts(server, "bulk", *asked)
    assert bulk.json()["embeddings"] == interactive.json()["embeddings"]
    assert idlers(server) == [False, False, True]


def test_a_worker_for_bulk_that_dies_is_replaced_while_others_serve(server: ServerProcess) -> None:
    """The server stays ready, and the bulk that comes next is answered."""
    assert texts(server, "bulk", "one that has it started").status_code == 200
    (bulk,) = filter(idle, workers(server))
    os.kill(bulk, signal.SIGKILL)
    assert texts(server, "interactive", "meanwhile").status_code == 200
    assert httpx.get(f"{server.url}/readyz", timeout=60).status_code == 200
    assert texts(server, "bulk", "afterwards").status_code == 200
    awaited(lambda: idlers(server) == [False, False, True])


def test_an_item_that_kills_bulk_workers_is_refused_alone(server: ServerProcess) -> None:
    """Its neighbours are answered, and no interactive request loses its worker."""
    assert texts(server, "bulk", "one that has it started").status_code == 200
    interactive = {pid for pid in workers(server) if not idle(pid)}
    answer = texts(server, "bulk", "before", "siglit-test: exit", "after").json()
    assert [(one["index"], one["code"]) for one in answer["errors"]] == [(1, "item_quarantined")]
    assert [row is None for row in answer["embeddings"]] == [False, True, False]
    assert interactive <= workers(server)


def test_without_them_both_classes_have_one_worker() -> None:
    """What a GPU does, and a CPU whose memory is short."""
    with ServerProcess("--cache", "off", "--bulk-workers", "off") as running:
        assert texts(running, "bulk", "a text").status_code == 200
        assert idlers(running) == [False, False]
