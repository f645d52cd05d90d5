"""Row 29: a bulk flood beside interactive clients, and shares among bulk clients.

    python -m bench.faults.classes [--flood interactive] [--model FOLDER] [--seconds 20]

plays it on any checkpoint; `--flood interactive` sends the flood in the class of everybody else,
which is what a server without classes does. The floods come from processes of their own, so that
reading their answers does not delay what the interactive clients measure. Rounds measure quiet and
flooded stretches in turn and are judged by their medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from statistics import median

import aiohttp

from bench.faults.answer_key import AnswerKey
from bench.faults.overload import capacity
from bench.faults.question import Question, Thing, alone, drawn_pictures, drawn_texts, in_octets
from bench.faults.row import Finding
from bench.faults.stage import Stage
from bench.faults.tally import Tally
from bench.faults.traffic import Traffic
from bench.rig.server_process import ServerProcess

SHARE = 0.3  # of what the server can do, asked by interactive clients
TEXTS, PICTURES = 64, 16  # of one question of a flood
KEYS = "even:e:bulk,rival:r:bulk,one:o:bulk,three:t:bulk"
LIMITS = "three weight=3"
LEAD = 5.0  # seconds in which the processes of floods start
FILLING = 1.0  # seconds in which they fill the server
PAUSE = 1.0  # seconds before a client of a flood comes back: the least `Retry-After`
SERVER = ("--http-workers", "1", "--timeout", "120")  # a base size takes seconds on a few cores
WIDE = ("--max-queue", "16384")


@dataclass(frozen=True, slots=True)
class Flood:
    """Clients of one process, each with one question at a time.

    They begin a little before `begin`, on the clock that processes share, so that the server is
    full by then; what is counted are the items answered in the `seconds` from then on.
    """

    url: str
    clients: int
    seconds: float
    headers: dict[str, str] = field(default_factory=dict)
    begin: float = 0.0
    seed: int = 0
    texts: int = TEXTS  # of a question
    pictures: bool = True

    def run(self) -> Tally:
        """What became of it; items are counted in `compared`."""
        os.nice(10)  # other machines' clients would take no time from the server
        return asyncio.run(self._run())

    async def _run(self) -> Tally:
        drawn, n = drawn_texts(8 * self.texts, self.seed), self.texts
        groups: list[Sequence[Thing]] = [drawn[at : at + n] for at in range(0, 8 * n, n)]
        if self.pictures:
            groups += [drawn_pictures(PICTURES)] * len(groups)
        asked = [in_octets(group) for group in groups]
        questions = [replace(one, headers={**one.headers, **self.headers}) for one in asked]
        key = Unjudged()
        async with Traffic(self.url, questions, key, fresh=1.0) as traffic:
            await _until(self.begin - FILLING)
            async with asyncio.TaskGroup() as group:
                for number in range(self.clients):
                    group.create_task(self._client(traffic, number, self.begin + self.seconds))
                await _until(self.begin)
                before = traffic.tally.compared
                await _until(self.begin + self.seconds)
                done = traffic.tally.compared - before
        traffic.tally.compared = done
        return traffic.tally

    async def _client(self, traffic: Traffic, number: int, end: float) -> None:
        while time.monotonic() < end:
            asked = traffic.questions[number % len(traffic.questions)]
            number += self.clients
            if not await traffic.ask(asked):
                await asyncio.sleep(PAUSE)


async def _until(when: float) -> None:
    await asyncio.sleep(when - time.monotonic())


class Unjudged(AnswerKey):
    """Takes every whole answer: the interactive clients' vectors are judged, and time is short."""

    def right(self, question: Question, head: bytes, body: bytes) -> bool:
        del head
        return len(body) % len(question.things) == 0 and len(body) > 0


@dataclass(frozen=True, slots=True)
class Plan:
    """How it is played; `flags` are the server's, `seconds` of each stretch."""

    seconds: float = 15.0
    rounds: int = 5
    clients: int = 32  # of a flood
    texts: int = 32  # of a question where shares are compared
    few: int = 16  # questions under way there, and ten times as many of the other client
    flood: str = "bulk"
    flags: tuple[str, ...] = ()


SHORT = Plan(2.0, 1, 8, few=4)


@dataclass(slots=True)
class Round:
    """Interactive clients without a flood and with one, and the flood without them."""

    quiet: Tally
    mixed: Tally
    flood: Tally
    alone: Tally

    @property
    def ratio(self) -> float:
        """Interactive p99 with the flood ÷ without."""
        return self.mixed.quantile(0.99) / self.quiet.quantile(0.99)

    @property
    def left(self) -> float:
        """Items of the flood beside the others ÷ what they leave of it."""
        return self.flood.compared / self.alone.compared / (1 - SHARE)


async def measured(server: ServerProcess, plan: Plan) -> list[Round]:
    """Rounds on a running server."""
    seconds = plan.seconds
    things: list[Thing] = [*drawn_texts(60), *drawn_pictures(20)]
    questions = [alone([thing]) for thing in things]
    key, found = AnswerKey(), list[Round]()
    await key.learn(server.url, [question.things[0] for question in questions])
    flood = Flood(server.url, plan.clients, seconds, {"x-priority": plan.flood})
    stage = Stage(long=False)
    async with Traffic(server.url, questions, key, fresh=1.0) as traffic:
        rate = SHARE * await capacity(stage, traffic, max(2.0, seconds / 4))
        for _ in range(plan.rounds):
            quiet = await traffic.paced(rate, seconds)
            (only,) = await floods(flood)
            begin = time.monotonic() + LEAD
            under_way = asyncio.ensure_future(floods(flood, begin=begin))
            await _until(begin)
            mixed = await traffic.paced(rate, seconds)
            (beside,) = await under_way
            found.append(Round(quiet, mixed, beside, only))
    return found


async def floods(*several: Flood, begin: float = 0.0) -> list[Tally]:
    """Each in a process of its own, all at the same moment."""
    begin = begin or time.monotonic() + LEAD
    loop, context = asyncio.get_running_loop(), multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(several), mp_context=context) as pool:
        return list(
            await asyncio.gather(
                *(loop.run_in_executor(pool, replace(f, begin=begin).run) for f in several)
            )
        )


async def classes(stage: Stage, finding: Finding) -> None:
    """A flood in bulk costs the others little and gets what they leave; shares are kept."""
    plan = stage.of(Plan(), SHORT)
    for part in PARTS.values():
        await part(stage, finding, plan)


async def beside(stage: Stage, finding: Finding, plan: Plan) -> None:
    """The flood and interactive clients."""
    server = await stage.server(*SERVER, *plan.flags)
    found = await measured(server, plan)
    for one in found:
        finding.take(one.quiet)
        finding.take(one.mixed)
        finding.must(one.quiet.refused + one.mixed.refused == 0, "0 interactive refused")
        finding.must(one.flood.lost == 0, f"0 of the flood lost: {dict(one.flood.reasons)}")
    ratio, left = median(one.ratio for one in found), median(one.left for one in found)
    p99 = median(one.quiet.p99_ms for one in found), median(one.mixed.p99_ms for one in found)
    finding.note(f"interactive p99 {p99[0]:.0f} → {p99[1]:.0f} ms: {ratio:.2f} × without the flood")
    finding.note(f"bulk gets {left:.2f} of what is left")
    finding.timely(ratio <= 1.5, "interactive p99 at most 1.5 × with a bulk flood")
    finding.timely(left >= 0.9, "bulk gets at least 0.9 of what is left")


async def shares(stage: Stage, finding: Finding, plan: Plan) -> None:
    """Bulk clients with few and with many questions under way: items done by weight."""
    keyed = ("--api-keys", KEYS, "--key-limits", LIMITS)
    server = await stage.server(*SERVER, *WIDE, *plan.flags, *keyed)

    def flood(key: str, clients: int) -> Flood:
        headers = {"x-api-key": key}
        return Flood(server.url, clients, plan.seconds, headers, texts=plan.texts, pictures=False)

    for few, many, wanted, slack in (("e", "r", 1.0, 0.10), ("t", "o", 3.0, 0.15)):
        one, other = await floods(flood(few, plan.few), flood(many, 10 * plan.few))
        for tally in (one, other):
            finding.must(tally.lost == 0, f"0 lost: {dict(tally.reasons)}")
            finding.must(tally.answered > 0, "every client gets something")
        ratio = one.compared / max(1, other.compared)
        finding.note(f"1 against 10 under way, weights {wanted:g}:1: items {ratio:.2f}:1")
        finding.timely(abs(ratio / wanted - 1) <= slack, f"items done within {slack:.0%}")


async def starving(stage: Stage, finding: Finding, plan: Plan) -> None:
    """A bulk item under full interactive load is done within the server's deadline."""
    server = await stage.server(*SERVER, *plan.flags)
    questions = [alone([thing]) for thing in drawn_texts(200)]
    key = AnswerKey()
    await key.learn(server.url, [question.things[0] for question in questions])
    async with Traffic(server.url, questions, key, fresh=1.0) as traffic, traffic.flowing(32):
        await asyncio.sleep(1.0)
        began = time.monotonic()
        async with aiohttp.ClientSession(server.url) as session:
            headers = {"x-priority": "bulk", "cache-control": "no-store"}
            body = {"texts": drawn_texts(TEXTS, 9)}
            async with session.post("/embed_text", json=body, headers=headers) as reply:
                finding.must(reply.status == 200, f"a bulk request is answered: {reply.status}")
        finding.note(f"{TEXTS} bulk texts beside 32 busy clients: {time.monotonic() - began:.1f} s")
    finding.take(traffic.turn())


PARTS = {"beside": beside, "shares": shares, "starving": starving}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was found as one JSON object; 0 when it holds."""
    parser = argparse.ArgumentParser("python -m bench.faults.classes", description=__doc__)
    parser.add_argument("--flood", choices=("bulk", "interactive"), default="bulk")
    parser.add_argument("--model", help="checkpoint folder; without: the demo")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each stretch")
    parser.add_argument("--rounds", type=int, default=5, help="the medians of which are judged")
    parser.add_argument("--texts", type=int, default=32, help="of a question about shares")
    parser.add_argument("--only", choices=list(PARTS))
    options = parser.parse_args(arguments)
    flags = ("--model", options.model) if options.model else ()
    plan = Plan(
        options.seconds, options.rounds, 32, options.texts, flood=options.flood, flags=flags
    )
    finding = asyncio.run(_played(plan, [options.only] if options.only else list(PARTS)))
    print(json.dumps({"holds": finding.holds, "broken": finding.broken, "notes": finding.notes}))
    return 0 if finding.holds else 1


async def _played(plan: Plan, parts: Sequence[str]) -> Finding:
    finding = Finding(long=True)
    async with Stage(long=True) as stage:
        for part in parts:
            await PARTS[part](stage, finding, plan)
    return finding


if __name__ == "__main__":
    sys.exit(main())
