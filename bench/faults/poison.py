"""Row 11: an item that ends its worker, and one that never comes back.

Both are provoked by the service's own test hooks. The item is refused; those that were in its
request, or only happened to be in the same worker, are not. The second time it is refused before
it can do harm.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from bench.faults.answer_key import AnswerKey
from bench.faults.kill import MENDED_WITHIN
from bench.faults.question import as_floats, drawn_texts
from bench.faults.row import Finding
from bench.faults.stage import IMPATIENT, Stage, counter, post, ready, until
from bench.faults.vitals import workers
from bench.rig.server_process import ServerProcess

EXIT, HANG = "siglit-test: exit", "siglit-test: hang"
PLACE = 3  # of the poisonous item in its request
CLIENTS = 3
DEATHS = 3  # of workers, until an item is known for what it is


@dataclass(frozen=True, slots=True)
class Told:
    """An answer to a request with a poisonous item."""

    status: int
    content: dict[str, Any]

    @property
    def codes(self) -> list[str]:
        """Why which items were refused."""
        if "error" in self.content:
            return [self.content["error"]["code"]]
        return [fault["code"] for fault in self.content.get("errors") or []]

    def others_right(self, key: AnswerKey, others: list[str]) -> bool:
        """Whether all other items have their vectors."""
        rows = list(self.content.get("embeddings") or [None])
        if len(rows) != len(others) + 1 or rows.pop(PLACE) is not None or None in rows:
            return False
        body = json.dumps({"embeddings": rows}).encode()
        return key.right(as_floats(others), b"", body)


async def ask(server: ServerProcess, texts: list[str]) -> Told:
    """Ask for texts of which one may be poisonous."""
    asked = as_floats(texts)
    reply = await post(server.url, asked.path, asked.body, asked.headers)
    return Told(reply.status, json.loads(reply.body))


async def poison(stage: Stage, finding: Finding) -> None:
    """First the one that kills, then the one that hangs."""
    await _kills(stage, finding)
    await _hangs(stage, finding)


async def _kills(stage: Stage, finding: Finding) -> None:
    server, others = await stage.common(), drawn_texts(5, seed=11)
    texts = [*others[:PLACE], EXIT, *others[PLACE:]]
    ended = await _ended(server)
    async with await stage.traffic(server, fresh=0.5) as traffic:
        await traffic.key.learn(server.url, others)
        async with finding.under(traffic, CLIENTS):
            first = await ask(server, texts)
            await _mended(server)
            before = workers(server)
            second = await ask(server, texts)
    for name, told in (("first", first), ("second", second)):
        finding.must(told.codes == ["item_quarantined"], f"{name}: {told.status} {told.codes}")
        finding.must(told.others_right(traffic.key, others), f"{name}: the other five are right")
    finding.must(workers(server) == before, "the second time no worker ends")
    deaths = await _ended(server) - ended
    finding.must(0 < deaths <= DEATHS, f"at most {DEATHS} workers end, not {deaths:.0f}")
    finding.note(
        f"poisonous item: {first.codes} after {deaths:.0f} deaths, then at once {second.codes}"
    )


async def _hangs(stage: Stage, finding: Finding) -> None:
    server = await stage.server(*IMPATIENT)
    before = workers(server)
    async with await stage.traffic(server, fresh=0.5) as traffic:
        told = await ask(server, [HANG])
        await _mended(server, before)
        finding.take(await traffic.closed(CLIENTS, stage.of(5.0, 1.0)))
    known = {(504, "deadline_exceeded"), (500, "item_quarantined")}
    finding.must({(told.status, code) for code in told.codes} <= known, f"hang: {told.codes}")
    finding.must(bool(told.codes), "the one that hangs is refused")
    finding.note(f"hang: {told.status} {told.codes[:1]}, worker replaced")


async def _ended(server: ServerProcess) -> float:
    """How many workers have ended so far. The main process tells every two seconds."""
    await asyncio.sleep(2.5)
    return await counter(server.url, "siglit_worker_restarts")


async def _mended(server: ServerProcess, unlike: dict[int, int] | None = None) -> None:
    """Wait until both towers have a worker, not all of them those of before."""

    async def mended() -> bool:
        now = workers(server)
        same = unlike is not None and unlike.items() <= now.items()
        return not same and len(now) >= 2 and await ready(server.url)

    if await until(mended, MENDED_WITHIN) is None:
        raise RuntimeError("no worker came back")
