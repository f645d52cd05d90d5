"""Rows 3, 4, 11 and 14: processes of the server are killed, or end in the middle of their work.

At the end of a server its clients do as a balancer does: they go on until `/readyz` says no, and
then ask no more. Whatever they asked until then is answered. A second signal ends all at once.

Row 11 is an item that ends its worker, and one that never comes back, by the service's own test
hooks. It is refused, the second time before it can do harm; its neighbours are not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import psutil

from bench.faults.question import AnswerKey, as_floats, drawn_texts
from bench.faults.row import Finding
from bench.faults.stage import IMPATIENT, SMALL_QUEUE, Stage, ask, counter, ready, until
from bench.faults.vitals import Vitals, births, http_processes, survivors, workers
from bench.rig.server_process import ServerProcess

CLIENTS = 6
MENDED_WITHIN = 120.0  # seconds
GROWTH_MB = 64.0
HEAVY_CLIENTS = 8
GRACE = 30.0  # seconds, the default of --drain-timeout
BY_SIGTERM = 128 + signal.SIGTERM
EXIT, HANG = "siglit-test: exit", "siglit-test: hang"
PLACE = 3  # of the poisonous item in its request
BESIDE = 3
DEATHS = 3  # of workers, until an item is known for what it is

Processes = dict[int, psutil.Process]
Kind = Callable[[ServerProcess], Processes]


async def kill_oldest(server: ServerProcess, kind: Kind) -> tuple[int, float]:
    """kill -9 the oldest process of a kind, so that they take turns: which, seconds until ready."""
    before = kind(server)
    victim = min(before, key=lambda pid: (before[pid].create_time(), pid))
    os.kill(victim, signal.SIGKILL)
    return victim, await mended(server, kind, before)


async def mended(server: ServerProcess, kind: Kind, before: Processes) -> float:
    """Seconds until it is ready with as many of a kind as before, not all of them the same."""

    async def ready_again() -> bool:
        now = kind(server)
        other = not before.items() <= now.items()
        return other and len(now) >= len(before) and await ready(server.url)

    return await until(ready_again, MENDED_WITHIN)


async def killed_workers(stage: Stage, finding: Finding) -> None:
    """Both towers lose their worker in turn; not one question is lost over it."""
    server = await stage.common()
    first, killed, seconds = set(workers(server)), set(), []
    async with await stage.traffic(server, fresh=0.5) as traffic, finding.under(traffic, CLIENTS):
        for _ in range(stage.of(10, 2)):
            victim, mended = await kill_oldest(server, workers)
            killed.add(victim)
            seconds.append(mended)
            await asyncio.sleep(stage.of(2.0, 0.5))
    finding.must(first <= killed, "both towers lost a worker")
    finding.note(f"{len(seconds)} kills, ready again in at most {max(seconds):.1f} s")


async def killed_http(stage: Stage, finding: Finding) -> None:
    """Only the open connections of the HTTP process drop, and a second try succeeds."""
    server = await stage.common()
    seconds = []
    async with await stage.traffic(server, fresh=0.5, retry=True) as traffic:
        await kill_oldest(server, http_processes)  # the first one grew before it was measured
        before = Vitals.of(server.family())
        async with finding.under(traffic, CLIENTS):
            for _ in range(stage.of(10, 2)):
                await asyncio.sleep(stage.of(2.0, 0.5))
                seconds.append((await kill_oldest(server, http_processes))[1])
            await asyncio.sleep(0.5)
        after = Vitals.of(server.family())
    kills, tally = len(seconds), finding.tally
    finding.must(0 < tally.retried <= CLIENTS * kills, "no more drops than open connections")
    grown, shared = after.resident_mb - before.resident_mb, after.shared_mb - before.shared_mb
    finding.must(grown <= GROWTH_MB, f"resident memory grew by {grown:.0f} MB")
    finding.must(shared <= 8, f"shared memory grew by {shared:.0f} MB")
    finding.note(
        f"{kills} kills, ready again in at most {max(seconds):.1f} s, {tally.retried} second tries,"
        f" resident {grown:+.0f} MB, shared {shared:+.1f} MB"
    )


async def shut_down(stage: Stage, finding: Finding) -> None:
    """Once with patience, once without."""
    server = await stage.spent(*SMALL_QUEUE)
    known = births(server.family())
    async with (
        await stage.traffic(server, stage.heavy, fresh=1.0) as traffic,
        finding.under(traffic, stage.of(HEAVY_CLIENTS, 4)),
    ):
        await asyncio.sleep(2.0)
        began = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        while await ready(server.url):
            await asyncio.sleep(0.02)
        unready = time.monotonic() - began
    code = await asyncio.to_thread(server.stop, signal.SIGCONT, GRACE + 10)
    seconds = time.monotonic() - began
    finding.must(code == 0, f"exit code 0, not {code}")
    await _none_left(finding, known)
    finding.note(f"/readyz 503 after {unready:.2f} s, exit code {code} after {seconds:.1f} s")
    finding.timely(unready <= 0.5, "/readyz says 503 at once")
    finding.must(seconds <= GRACE, "ended within the grace time")
    await _at_once(stage, finding)


async def _at_once(stage: Stage, finding: Finding) -> None:
    server = await stage.spent(*IMPATIENT)
    known = births(server.family())
    async with (
        await stage.traffic(server, stage.heavy, fresh=1.0) as traffic,
        traffic.flowing(HEAVY_CLIENTS),  # what they lose here is meant to be lost
    ):
        await asyncio.sleep(1.0)
        began = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        await asyncio.sleep(0.2)
        code = await asyncio.to_thread(server.stop, signal.SIGTERM, GRACE)
        seconds = time.monotonic() - began
    finding.must(code == BY_SIGTERM, f"the second signal ends it: {BY_SIGTERM}, not {code}")
    finding.timely(seconds <= 1.0, "the second signal ends it at once")
    finding.note(f"second signal: exit code {code} after {seconds:.1f} s")
    await _none_left(finding, known)


async def _none_left(finding: Finding, known: Processes) -> None:
    async def gone() -> bool:
        return not survivors(known)

    with contextlib.suppress(TimeoutError):
        await until(gone, 5.0)
    finding.must(not survivors(known), f"no process is left: {len(survivors(known))} are")


async def told(server: ServerProcess, texts: list[str]) -> tuple[int, list[str], dict[str, Any]]:
    """Ask for texts of which one may be poisonous: status, codes of the refused, content."""
    reply = await ask(server.url, as_floats(texts))
    content = json.loads(reply.body)
    faults = [content["error"]] if "error" in content else content.get("errors") or []
    return reply.status, [fault["code"] for fault in faults], content


def _others_right(content: dict[str, Any], key: AnswerKey, others: list[str]) -> bool:
    """Whether all but the poisonous item have their vectors."""
    rows = list(content.get("embeddings") or [None])
    if len(rows) != len(others) + 1 or rows.pop(PLACE) is not None or None in rows:
        return False
    return key.right(as_floats(others), b"", json.dumps({"embeddings": rows}).encode())


async def poison(stage: Stage, finding: Finding) -> None:
    """First the one that kills, then the one that hangs."""
    await _kills(stage, finding)
    await _hangs(stage, finding)


async def _kills(stage: Stage, finding: Finding) -> None:
    server, others = await stage.common(), drawn_texts(5, seed=11)
    texts = [*others[:PLACE], EXIT, *others[PLACE:]]
    known, ended = workers(server), await _ended(server)
    async with await stage.traffic(server, fresh=0.5) as traffic:
        await traffic.key.learn(server.url, others)
        async with finding.under(traffic, BESIDE):
            first = await told(server, texts)
            await mended(server, workers, known)
            alive = workers(server)
            second = await told(server, texts)
    for name, (status, codes, content) in (("first", first), ("second", second)):
        finding.must(codes == ["item_quarantined"], f"{name}: {status} {codes}")
        right = _others_right(content, traffic.key, others)
        finding.must(right, f"{name}: the other five are right")
    finding.must(workers(server) == alive, "the second time no worker ends")
    deaths = await _ended(server) - ended
    finding.must(0 < deaths <= DEATHS, f"at most {DEATHS} workers end, not {deaths:.0f}")
    finding.note(f"poisonous item: {first[1]} after {deaths:.0f} deaths, then at once {second[1]}")


async def _hangs(stage: Stage, finding: Finding) -> None:
    server = await stage.server(*IMPATIENT)
    before = workers(server)
    async with await stage.traffic(server, fresh=0.5) as traffic:
        status, codes, _ = await told(server, [HANG])
        await mended(server, workers, before)
        finding.take(await traffic.closed(BESIDE, stage.of(5.0, 1.0)))
    known = {(504, "deadline_exceeded"), (500, "item_quarantined")}
    finding.must({(status, code) for code in codes} <= known, f"hang: {codes}")
    finding.must(bool(codes), "the one that hangs is refused")
    finding.note(f"hang: {status} {codes[:1]}, worker replaced")


async def _ended(server: ServerProcess) -> float:
    """How many workers have ended so far. The main process tells every two seconds."""
    await asyncio.sleep(2.5)
    return await counter(server.url, "siglit_worker_restarts")
