"""Row 28: two instances that share one Redis behind a real nginx and a real HAProxy.

    clients ──► balancer ──► instance 1 ──► Redis
                       └───► instance 2 ──┘

No client retries: whatever the balancer does not hide counts as lost. Half of the questions bypass
the look-up, so that an instance has work under way when it is killed, restarted, or replaced by one
with another model. An answer is judged by the model that it names: a vector of the other model,
from a cache or from a worker, is wrong.

The other model is the demo checkpoint with every vector negated: the right answers of both are
known from one, and no vector of the one passes for a vector of the other.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.faults.question import (
    AnswerKey,
    Question,
    Thing,
    Vector,
    as_floats,
    drawn_pictures,
    drawn_texts,
    in_openai_form,
)
from bench.faults.row import Finding
from bench.faults.stage import Stage, counter
from bench.faults.traffic import Tally, Traffic
from bench.rig.balancer import BALANCERS, Balancer, accepts
from bench.rig.child import Absent
from bench.rig.random_checkpoint import DEMO
from bench.rig.redis_server import RedisServer
from bench.rig.server_process import ServerProcess

CLIENTS = 6
SEEN = 1.0  # seconds until a balancer knows that an instance is back: before, it has only the other
OLD, NEW = "siglit-old", "siglit-new"
NEGATED = (  # the last layers that a vector passes
    "text_model.head.weight",
    "text_model.head.bias",
    "vision_model.head.attention.out_proj.weight",
    "vision_model.head.attention.out_proj.bias",
    "vision_model.head.layernorm.weight",
    "vision_model.head.mlp.fc2.weight",
    "vision_model.head.mlp.fc2.bias",
)


async def rollout(stage: Stage, finding: Finding) -> None:
    """Behind a balancer instances die, restart and change their model; no client notices."""
    with TemporaryDirectory(prefix="siglit-rollout-") as home, RedisServer() as redis:
        models = {OLD: DEMO, NEW: await asyncio.to_thread(write_negated, Path(home, "other"))}
        pair = Pair(stage, finding, redis, models)
        try:
            await pair.start()
            await pair.shared()
            here = list(_found(finding))
            for balancer in here:
                with balancer.before([server.port for server in pair.servers]) as (url, _):
                    if stage.long or balancer is here[0]:
                        await pair.killed(url)
                    if stage.long:
                        await pair.restarted(url)
                    if stage.long or balancer is here[-1]:
                        await pair.changed(url)
                finding.note(f"behind {balancer.version()}")
        finally:
            pair.end()


def _found(finding: Finding) -> Iterator[Balancer]:
    for balancer in BALANCERS:
        try:
            balancer.find()
            yield balancer
        except Absent as absent:
            finding.note(f"not played: {absent}")


@dataclass
class Pair:
    """Two instances, and what is done to them while clients ask the balancer before them."""

    stage: Stage
    finding: Finding
    redis: RedisServer
    models: Mapping[str, Path]

    def __post_init__(self) -> None:
        self._serving = OLD
        self._key = ModelKey()
        self._things: list[Sequence[Thing]] = [drawn_texts(120), drawn_pictures(24)]
        pairs = [kind[i : i + 2] for kind in self._things for i in range(0, len(kind), 2)]
        # In JSON, as only that names the model.
        self._questions = [way(two) for two in pairs for way in (as_floats, in_openai_form)]
        self.servers = [self._server(OLD) for _ in range(2)]

    async def start(self) -> None:
        """Both, and the right answers of both models by one of them."""
        await asyncio.gather(*(asyncio.to_thread(one.start) for one in self.servers))
        await self._key.learn(self.servers[0].url, chain(*self._things))

    def end(self) -> None:
        for server in self.servers:
            server.kill()

    async def shared(self) -> None:
        """The second instance finds in Redis whatever the first one was asked."""
        for server in self.servers:
            tally = await self._once_each(server.url)
            while await counter(server.url, "cache_write_queue"):
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.1)  # the last batch is on its way
        self.finding.must(tally.states["miss"] == 0, f"nothing is computed again: {tally.states}")
        self.finding.must(tally.states["hit-l2"] > 0, f"it comes from Redis: {tally.states}")

    async def _once_each(self, url: str) -> Tally:
        async with Traffic(url, self._questions, self._key) as traffic:
            await traffic.once_each()
        self.finding.take(traffic.tally)
        return traffic.tally

    async def killed(self, url: str) -> None:
        """kill -9 of an instance, and up again."""
        async with self._load(url):
            for number in range(self.stage.of(4, 1)):
                server = self.servers[number % 2]
                server.kill()
                await asyncio.sleep(self.stage.of(2.0, 0.5))
                await _start(server)
                await asyncio.sleep(SEEN)

    async def restarted(self, url: str) -> None:
        """One after the other drains, ends and is started again."""
        async with self._load(url):
            for place, server in enumerate(self.servers):
                await self._replaced(place, server)

    async def changed(self, url: str) -> None:
        """One after the other makes way for one with the other model; in the end only that."""
        other = NEW if self._serving == OLD else OLD
        self._key.answers.clear()
        async with self._load(url):
            for place in range(2):
                await self._replaced(place, self._server(other))
        both, self._serving = dict(self._key.answers), other
        self._key.answers.clear()
        await self._once_each(url)
        self.finding.must(both.keys() == {OLD, NEW}, f"both answered meanwhile: {both}")
        left = self._key.answers.keys()
        self.finding.must(left == {other}, f"only {other} is left: {[*left]}")

    def _server(self, name: str) -> ServerProcess:
        # Patient with Redis: how quick it is on a busy machine is not what is asked here. The short
        # form does not wait until a busy instance falls idle; the balancer hides it.
        flags = ["--redis-url", self.redis.url, "--redis-budget-ms", "1000"]
        flags += ["--served-name", name, "--model", str(self.models[name])]
        return ServerProcess(*flags, *self.stage.of((), ("--drain-timeout", "3")))

    @asynccontextmanager
    async def _load(self, url: str) -> AsyncIterator[None]:
        """Clients of the balancer, before, during and after what is done inside."""
        async with Traffic(url, self._questions, self._key, fresh=0.5) as traffic:
            async with traffic.flowing(CLIENTS):
                await asyncio.sleep(self.stage.of(2.0, 0.5))
                yield
                await asyncio.sleep(self.stage.of(2.0, 0.5))
            tally = traffic.turn()
        self.finding.take(tally)
        self.finding.note(f"slowest answer {max(tally.seconds, default=0):.2f} s")

    async def _replaced(self, place: int, new: ServerProcess) -> None:
        """End one by SIGTERM, which drains it, and start the other on its port."""
        old = self.servers[place]
        code = await asyncio.to_thread(old.stop, signal.SIGTERM, 60.0)
        self.finding.must(code == 0, f"it drained and ended with 0, not {code}")
        new.port, new.url = old.port, old.url
        self.servers[place] = new
        await _start(new)


async def _start(server: ServerProcess) -> None:
    """Start it once the processes of the one before have closed the port."""
    while accepts(server.port):
        await asyncio.sleep(0.05)
    await asyncio.to_thread(server.start)


class ModelKey(AnswerKey):
    """The right answers of both models. Takes those in JSON only, as only they name the model."""

    def __init__(self) -> None:
        super().__init__()
        self._keys = {OLD: AnswerKey(), NEW: AnswerKey()}
        self.answers: Counter[str] = Counter()  # by model

    def put(self, things: Iterable[Thing], vectors: Iterable[Vector]) -> None:
        """The vectors are the old model's."""
        right = dict(zip(things, vectors, strict=True))
        self._keys[OLD].put(right, right.values())
        self._keys[NEW].put(right, (-vector for vector in right.values()))

    def right(self, question: Question, head: bytes, body: bytes) -> bool:
        """Whether an answer holds the right vectors of the model it names."""
        name = str(json.loads(body)["model"])
        self.answers[name] += 1
        return name in self._keys and self._keys[name].right(question, head, body)


def write_negated(folder: Path) -> Path:
    """Write the other model into `folder`, which is made."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(DEMO, folder)
    weights: dict[str, Any] = load_file(DEMO / "model.safetensors")
    negated = {name: -weights[name] for name in NEGATED}
    save_file(weights | negated, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
