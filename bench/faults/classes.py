"""Row 29: a bulk flood beside interactive clients, and shares among bulk clients.

    python -m bench.faults.classes --model base                        # the row, of any checkpoint
    python -m bench.faults.classes --model base --name classes-base    # keeps a result

With `--name` the flood comes in the class of everybody else too, which is what a server without
classes does, and nothing is judged. Floods come from processes of their own, so that reading their
answers does not delay the interactive clients. Each round measures a quiet stretch and a flooded
one; their medians are judged. What interactive clients leave is counted in the server's CPU time:
items that come one at a time cost more of it than the same items in full batches.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import multiprocessing
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from bench.faults.overload import capacity
from bench.faults.question import (
    AnswerKey,
    Question,
    Thing,
    alone,
    as_floats,
    drawn_pictures,
    drawn_texts,
    in_octets,
)
from bench.faults.row import Finding
from bench.faults.stage import Stage, ask
from bench.faults.traffic import Tally, Traffic
from bench.rig.command import described
from bench.rig.random_checkpoint import checkpoint
from bench.rig.result_file import RESULTS, save
from bench.rig.server_process import ServerProcess, cpu_seconds

T = TypeVar("T")
SHARE = 0.3  # of what the server can do, asked by interactive clients
TEXTS = 64  # of one question of a flood, or a quarter as many pictures
KEYS = "even:e:bulk,rival:r:bulk,one:o:bulk,three:t:bulk"
LIMITS = "three weight=3"
FILLING = 1.0  # seconds in which they fill the server
PAUSE = 1.0  # seconds before a client of a flood comes back: the least `Retry-After`
BULK = {"x-priority": "bulk"}
SERVER = ("--http-workers", "1", "--timeout", "120")  # a base size takes seconds on a few cores
WIDE = ("--max-queue", "16384")


@dataclass(frozen=True, slots=True)
class Flood:
    """Clients of one process, each with one question at a time.

    They begin at once, so that the server is full by `begin`, on the clock that processes share;
    what is counted are the items answered in the `seconds` from then on.
    """

    url: str
    clients: int
    seconds: float
    headers: dict[str, str] = field(default_factory=dict)
    texts: int = TEXTS  # of a question
    pictures: int = 0  # of another one

    def draw(self) -> None:
        """Have what it asks ready in this process, before it begins."""
        os.nice(10)  # other machines' clients would take no time from the server
        _drawn(self.texts, self.pictures)

    async def run(self, begin: float) -> Tally:
        """What became of it; items are counted in `compared`."""
        asked = _drawn(self.texts, self.pictures)
        questions = [replace(one, headers={**one.headers, **self.headers}) for one in asked]
        crowd = Traffic(self.url, questions, Unjudged(), fresh=1.0)
        async with crowd as traffic, asyncio.TaskGroup() as group:
            for number in range(self.clients):
                group.create_task(self._client(traffic, number, begin + self.seconds))
            await asyncio.sleep(begin - time.monotonic())
            before = traffic.tally.compared
            await asyncio.sleep(begin + self.seconds - time.monotonic())
            done = traffic.tally.compared - before
        traffic.tally.compared = done
        return traffic.tally

    async def _client(self, traffic: Traffic, number: int, end: float) -> None:
        while time.monotonic() < end:
            asked = traffic.questions[number % len(traffic.questions)]
            number += self.clients
            if not await traffic.ask(asked):
                await asyncio.sleep(PAUSE)


@functools.cache
def _drawn(texts: int, pictures: int) -> list[Question]:
    drawn = drawn_texts(8 * texts)
    groups: list[Sequence[Thing]] = [drawn[at : at + texts] for at in range(0, len(drawn), texts)]
    if pictures:
        groups += [drawn_pictures(pictures)] * len(groups)
    return [in_octets(group) for group in groups]


def _run(flood: Flood, begin: float) -> Tally:
    return asyncio.run(flood.run(begin))


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
    group: int = TEXTS
    texts: int = 32  # of a question where shares are compared
    few: int = 16  # questions under way there, and ten times as many of the other client
    floods: tuple[str, ...] = ("bulk",)  # classes
    flags: tuple[str, ...] = ()


SHORT = Plan(2.0, 1, 8, few=4)
PLANS = {"base": Plan(40.0, 3, 16, 8, 4, 4)}  # a few items a second; of other models `Plan()`


@dataclass(slots=True)
class Round:
    """Interactive clients without a flood and with one, and the flood without them."""

    flooded: str  # the flood's class
    rate: float  # of interactive questions
    seconds: float
    quiet: Tally
    mixed: Tally
    flood: Tally
    alone: Tally
    quiet_cpu: float  # CPU seconds a second, of all the server's processes
    alone_cpu: float

    @property
    def ratio(self) -> float:
        """Interactive p99 with the flood ÷ without."""
        return self.mixed.quantile(0.99) / self.quiet.quantile(0.99)

    @property
    def left(self) -> float:
        """Items of the flood beside the others ÷ what they leave of it."""
        return self.share / (1 - self.quiet_cpu / self.alone_cpu)

    @property
    def share(self) -> float:
        """Items of the flood beside the others ÷ those of the flood alone."""
        return self.flood.compared / max(1, self.alone.compared)

    def fields(self) -> dict[str, Any]:
        """As JSON holds it: milliseconds, questions and items a second."""
        stretches = {"quiet": self.quiet, "mixed": self.mixed}
        return {
            "flood": self.flooded,
            "rate": self.rate,
            **{f"{n}_p50_ms": 1e3 * one.quantile(0.5) for n, one in stretches.items()},
            **{f"{n}_p99_ms": one.p99_ms for n, one in stretches.items()},
            **{f"{n}_refused": one.refused for n, one in stretches.items()},
            "flood_items_per_s": self.flood.compared / self.seconds,
            "alone_items_per_s": self.alone.compared / self.seconds,
            "quiet_cpu": self.quiet_cpu,
            "alone_cpu": self.alone_cpu,
        }


async def measured(server: ServerProcess, plan: Plan) -> list[Round]:
    """Rounds on a running server, for each class of flood in turn."""
    seconds = plan.seconds
    questions = [alone([thing]) for thing in interactive()]
    key, found = AnswerKey(), list[Round]()
    await key.learn(server.url, [question.things[0] for question in questions])
    size = {"texts": plan.group, "pictures": plan.group // 4}
    stage = Stage(long=False)
    async with floods(Flood(server.url, 2, FILLING, BULK, **size)) as run:
        await run()  # has the workers for bulk started
    async with Traffic(server.url, questions, key, fresh=1.0) as traffic:
        rate = SHARE * await capacity(stage, traffic, max(2.0, seconds / 4))
        for name in plan.floods * plan.rounds:
            flood = Flood(server.url, plan.clients, seconds, {"x-priority": name}, **size)
            quiet, quiet_cpu = await spending(server, traffic.paced(rate, seconds))
            async with floods(flood) as run:
                only, (_, alone_cpu) = await flooded(run, spending(server, asyncio.sleep(seconds)))
                beside, mixed = await flooded(run, traffic.paced(rate, seconds))
            tallies = (quiet, mixed, beside, only)
            found.append(Round(name, rate, seconds, *tallies, quiet_cpu, alone_cpu))
    return found


def interactive() -> Iterator[Thing]:
    """Three texts to a picture: pictures in a row would be a flood of their own for their tower."""
    texts, pictures = iter(drawn_texts(60)), drawn_pictures(20)
    for picture in pictures:
        yield from itertools.islice(texts, 3)
        yield picture


async def flooded(run: Callable[[], Awaitable[list[Tally]]], work: Awaitable[T]) -> tuple[Tally, T]:
    """What became of the flood, and what comes of the work that begins once it fills the server."""
    under_way = asyncio.ensure_future(run())
    await asyncio.sleep(FILLING)
    done = await work
    (tally,) = await under_way
    return tally, done


async def spending(server: ServerProcess, work: Awaitable[T]) -> tuple[T, float]:
    """What comes of the work, and the server's CPU seconds a second meanwhile."""
    began, before = time.monotonic(), sum(map(cpu_seconds, server.family()))
    done = await work
    spent = sum(map(cpu_seconds, server.family())) - before
    return done, spent / (time.monotonic() - began)


@asynccontextmanager
async def floods(*several: Flood) -> AsyncIterator[Callable[[], Awaitable[list[Tally]]]]:
    """Each in a process of its own. Call what is yielded to let them all begin."""
    loop, context = asyncio.get_running_loop(), multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        pools = [stack.enter_context(ProcessPoolExecutor(1, context)) for _ in several]

        async def each(work: Callable[[Flood], T]) -> list[T]:
            ran = (loop.run_in_executor(p, work, f) for p, f in zip(pools, several, strict=True))
            return await asyncio.gather(*ran)

        await each(Flood.draw)
        yield lambda: each(functools.partial(_run, begin=time.monotonic() + FILLING))


async def classes(stage: Stage, finding: Finding, plan: Plan | None = None) -> None:
    """A flood in bulk costs the others little and gets what they leave; shares are kept."""
    for part in (beside, shares, starving):
        await part(stage, finding, plan or stage.of(Plan(), SHORT))


async def beside(stage: Stage, finding: Finding, plan: Plan) -> None:
    """The flood and interactive clients."""
    server = await stage.server(*SERVER, *plan.flags)
    found = await measured(server, plan)
    for one in found:
        for tally in (one.quiet, one.mixed):
            finding.take(tally)
        finding.must(one.quiet.refused + one.mixed.refused == 0, "0 interactive refused")
        finding.must(one.flood.lost == 0, f"0 of the flood lost: {dict(one.flood.reasons)}")
    ratio, left = median(one.ratio for one in found), median(one.left for one in found)
    share = median(one.share for one in found)
    p99 = median(one.quiet.p99_ms for one in found), median(one.mixed.p99_ms for one in found)
    finding.note(f"interactive p99 {p99[0]:.0f} → {p99[1]:.0f} ms: {ratio:.2f} × without the flood")
    finding.note(f"bulk {share:.2f} × as alone, {left:.2f} of the CPU time that is left")
    finding.timely(ratio <= 1.5, "interactive p99 at most 1.5 × with a bulk flood")
    finding.timely(left >= 0.9, "bulk gets at least 0.9 of what is left")


async def shares(stage: Stage, finding: Finding, plan: Plan) -> None:
    """Bulk clients with few and with many questions under way: items done by weight."""
    keyed = ("--api-keys", KEYS, "--key-limits", LIMITS)
    server = await stage.server(*SERVER, *WIDE, *plan.flags, *keyed)

    def flood(key: str, clients: int) -> Flood:
        headers = {"x-api-key": key}
        return Flood(server.url, clients, plan.seconds, headers, texts=plan.texts)

    for few, many, wanted, slack in (("e", "r", 1.0, 0.10), ("t", "o", 3.0, 0.15)):
        async with floods(flood(few, plan.few), flood(many, 10 * plan.few)) as run:
            one, other = await run()
        for tally in (one, other):
            finding.must(tally.lost == 0, f"0 lost: {dict(tally.reasons)}")
            finding.must(tally.answered > 0, "every client gets something")
        ratio = one.compared / max(1, other.compared)
        finding.note(f"1 against 10 under way, weights {wanted:g}:1: items {ratio:.2f}:1")
        finding.timely(abs(ratio / wanted - 1) <= slack, f"items done within {slack:.0%}")


async def starving(stage: Stage, finding: Finding, plan: Plan) -> None:
    """A bulk item under full interactive load is done within the server's deadline."""
    server = await stage.server(*SERVER, *plan.flags)
    questions = [alone([thing]) for thing in drawn_texts(64)]
    key = AnswerKey()
    await key.learn(server.url, [question.things[0] for question in questions])
    async with Traffic(server.url, questions, key, fresh=1.0) as traffic, traffic.flowing(32):
        await asyncio.sleep(1.0)
        began = time.monotonic()
        bulk = as_floats(drawn_texts(plan.group, 9))
        bulk = replace(bulk, headers={**bulk.headers, **BULK, "cache-control": "no-store"})
        reply = await ask(server.url, bulk)
        finding.must(reply.status == 200, f"a bulk request is answered: {reply.status}")
        seconds = time.monotonic() - began
        finding.note(f"{plan.group} bulk texts beside 32 busy clients: {seconds:.1f} s")
    finding.take(traffic.turn())


def main(arguments: Sequence[str] | None = None) -> int:
    """Keep the rounds, or judge them: 0 when all holds."""
    parser = described("bench.faults.classes", __doc__)
    parser.add_argument("--model", default="demo", metavar="demo|base|FOLDER")
    parser.add_argument("--seconds", type=float, help="of each stretch")
    parser.add_argument("--rounds", type=int, help="the medians of which are judged")
    parser.add_argument("--name", help="of the result: the flood in either class, nothing judged")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    options = parser.parse_args(arguments)
    plan = PLANS.get(options.model, Plan())
    plan = replace(
        plan,
        seconds=options.seconds or plan.seconds,
        rounds=options.rounds or plan.rounds,
        flags=("--model", str(checkpoint(options.model))),
    )
    if options.name:
        rounds = asyncio.run(_kept(replace(plan, floods=("bulk", "interactive"))))
        fields = {"model": Path(options.model).name, "seconds": plan.seconds, "rounds": rounds}
        print(save(options.name, fields, options.out, "cpu"))
        return 0
    finding = asyncio.run(_judged(plan))
    print(json.dumps({"holds": finding.holds, "broken": finding.broken, "notes": finding.notes}))
    return 0 if finding.holds else 1


async def _kept(plan: Plan) -> list[dict[str, Any]]:
    async with Stage(long=True) as stage:
        found = await measured(await stage.server(*SERVER, *plan.flags), plan)
    return [one.fields() for one in found]


async def _judged(plan: Plan) -> Finding:
    finding = Finding(long=True)
    async with Stage(long=True) as stage:
        await classes(stage, finding, plan)
    return finding


if __name__ == "__main__":
    sys.exit(main())
