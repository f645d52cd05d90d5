"""Two instances that share one Redis behind a balancer, and what is done to them under load.

    clients ──► balancer ──► instance 1 ──► Redis
                       └───► instance 2 ──┘

No client tries again: whatever the balancer does not hide is counted as lost. Half of the questions
go past the look-up, so that there is work under way on an instance when it is hurt.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from bench.balance.balancer import Balancer, accepts
from bench.balance.model_key import ModelKey, ReversedKey
from bench.balance.reversed_model import write
from bench.faults.answer_key import AnswerKey
from bench.faults.question import Question, Thing, as_floats, in_openai_form
from bench.faults.row import Finding, Row
from bench.faults.stage import Stage, counter
from bench.faults.traffic import Traffic
from bench.rig.redis_server import RedisServer
from bench.rig.server_process import ServerProcess

CLIENTS = 6
INSTANCES = 2
OLD, NEW = "siglit-old", "siglit-new"


class Rollout:
    """`async with Rollout(Nginx) as rollout:` starts everything; leaving ends it."""

    def __init__(self, balancer: type[Balancer], *flags: str) -> None:
        balancer.find()  # before anything is started
        self._kind = balancer
        self._flags = flags
        self.servers: list[ServerProcess] = []

    async def __aenter__(self) -> Self:
        self._home = TemporaryDirectory(prefix="siglit-rollout-")
        self._redis = await asyncio.to_thread(RedisServer)
        self.servers = [self._server(OLD) for _ in range(INSTANCES)]
        self._balancer = self._kind([server.port for server in self.servers])
        try:
            await asyncio.gather(*(asyncio.to_thread(one.start) for one in self.servers))
            await asyncio.to_thread(self._balancer.start)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._balancer.stop()
        for server in self.servers:
            server.kill()
        self._redis.close()
        self._home.cleanup()

    async def put_before(self, balancer: type[Balancer]) -> None:
        """Let another balancer take the place of the one before the instances."""
        self._balancer.stop()
        self._balancer = balancer([server.port for server in self.servers])
        await asyncio.to_thread(self._balancer.start)

    def rows(self) -> tuple[Row, ...]:
        """What is played, in this order: the last one leaves the new model behind."""
        return (
            Row(1, "what one instance computed, the other looks up", self.shared),
            Row(2, "kill -9 of an instance under load", self.killed),
            Row(3, "rolling restart under load", self.restarted),
            Row(4, "rolling change of the model under load", self.changed),
        )

    # -- the rows ------------------------------------------------------------------------------

    async def shared(self, stage: Stage, finding: Finding) -> None:
        """The second instance finds in Redis whatever the first one was asked."""
        found = []
        for server in self.servers:
            async with await stage.traffic(server, self._questions(stage)) as traffic:
                await traffic.once_each(traffic.questions)
            found.append(traffic.whole())
            finding.take(found[-1])
            await _written(server.url)
        second = found[-1].states
        finding.must(second["miss"] == 0, f"nothing is computed again: {second}")
        finding.must(second["hit-l2"] > 0, f"it comes from Redis: {second}")
        finding.note(f"{second['hit-l2']} items came from Redis, none was computed again")

    async def killed(self, stage: Stage, finding: Finding) -> None:
        """An instance is gone between two instructions, and no client learns of it."""
        kills = stage.of(4, 1)
        async with self._load(stage, finding):
            for number in range(kills):
                server = self.servers[number % INSTANCES]
                server.kill()
                await asyncio.sleep(stage.of(2.0, 0.5))
                await self._start(server)
        finding.note(f"{kills} kills; {self._timings(finding)}")

    async def restarted(self, stage: Stage, finding: Finding) -> None:
        """Each instance is told to end, drains, ends well and is started again."""
        async with self._load(stage, finding):
            seconds = [await self._restart(server, server, finding) for server in self.servers]
        finding.note(f"ended within {max(seconds):.1f} s; {self._timings(finding)}")

    async def changed(self, stage: Stage, finding: Finding) -> None:
        """Each answer holds the vectors of the model that it names; in the end only the new."""
        await self._other_model()
        old = await self._key(stage, self.servers[0])
        key = ModelKey({OLD: old, NEW: ReversedKey(old)})
        questions = self._questions(stage)
        async with Traffic(self._balancer.url, questions, key, fresh=0.5) as traffic:
            async with traffic.flowing(CLIENTS):
                await asyncio.sleep(stage.of(2.0, 0.5))
                for place, server in enumerate(self.servers):
                    new = self._server(NEW, "--model", str(self._other_model_folder))
                    new.port, new.url = server.port, server.url
                    await self._restart(server, new, finding)
                    self.servers[place] = new
            finding.take(traffic.turn())
            both = dict(key.answers)
            key.answers.clear()
            await traffic.once_each(questions)
            finding.take(traffic.turn())
        finding.must(both.keys() == {OLD, NEW}, f"both answered: {both}")
        finding.must(key.answers.keys() == {NEW}, f"only the new one is left: {key.answers}")
        finding.note(f"while it went on, {both[OLD]} answers of the old and {both[NEW]} of the new")

    # -- parts ---------------------------------------------------------------------------------

    def _server(self, name: str, *flags: str) -> ServerProcess:
        # Patient with Redis: how quick it is on a busy machine is not what is asked here.
        shared = ("--redis-url", self._redis.url, "--redis-budget-ms", "1000")
        return ServerProcess(*shared, "--served-name", name, *flags, *self._flags)

    @cached_property
    def _other_model_folder(self) -> Path:
        return Path(self._home.name) / "other"

    async def _other_model(self) -> None:
        await asyncio.to_thread(write, self._other_model_folder)

    def _questions(self, stage: Stage) -> list[Question]:
        """In JSON, one item and several, texts and pictures."""
        things = self._things(stage)
        pairs = [things[i : i + 2] for i in range(0, len(things), 2)]
        return [way(pair) for pair in pairs for way in (as_floats, in_openai_form)]

    @staticmethod
    def _things(stage: Stage) -> list[Thing]:
        found = {thing: None for question in stage.questions for thing in question.things}
        texts = [thing for thing in found if isinstance(thing, str)]
        pictures = [thing for thing in found if isinstance(thing, bytes)]
        return [*texts[: len(texts) // 2 * 2], *pictures[: len(pictures) // 2 * 2]]

    async def _key(self, stage: Stage, server: ServerProcess) -> AnswerKey:
        key = AnswerKey()
        await key.learn(server.url, self._things(stage))
        return key

    @asynccontextmanager
    async def _load(self, stage: Stage, finding: Finding) -> AsyncIterator[None]:
        """Load on the balancer; every answer counts."""
        key = await self._key(stage, self.servers[0])
        questions = self._questions(stage)
        async with Traffic(self._balancer.url, questions, key, fresh=0.5) as traffic:
            async with traffic.flowing(CLIENTS):
                await asyncio.sleep(stage.of(2.0, 0.5))
                yield
                await asyncio.sleep(stage.of(2.0, 0.5))
            finding.take(traffic.turn())

    @staticmethod
    def _timings(finding: Finding) -> str:
        tally = finding.tally
        return f"p50 {1e3 * tally.quantile(0.5):.0f} ms, slowest {max(tally.seconds):.2f} s"

    async def _restart(self, old: ServerProcess, new: ServerProcess, finding: Finding) -> float:
        """End the one by SIGTERM and start the other; how long the ending took, in seconds."""
        began = time.monotonic()
        code = await asyncio.to_thread(old.stop, signal.SIGTERM, 60.0)
        seconds = time.monotonic() - began
        finding.must(code == 0, f"it drained and ended with 0, not {code}")
        await self._start(new)
        return seconds

    @staticmethod
    async def _start(server: ServerProcess) -> None:
        """Start it where its forerunner's processes have let go of the port."""
        while accepts(server.port):
            await asyncio.sleep(0.05)
        await asyncio.to_thread(server.start)


async def _written(url: str) -> None:
    """Wait until what was computed is in Redis."""
    while await counter(url, "cache_write_queue"):
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.1)  # the last batch is on its way
