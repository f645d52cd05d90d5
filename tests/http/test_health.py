"""Health: ready means that both towers really answered, not that a process exists."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from litapi.errors import DeadlineExceeded, NotReady
from litapi.http.health import Health
from litapi.messages import Job, Kind, Reply
from litapi.model.picture import PicturePolicy, PictureReader
from litapi.settings import IMAGE_FORMATS, Settings
from litapi.transport.probe import probe


class Towers:
    """Stands where the dispatcher does; each tower answers, refuses or stays silent as told."""

    def __init__(self) -> None:
        self.live: dict[str, int] = {}
        self.broken: set[str] = set()
        self.failing: set[str] = set()
        self.refusing: set[str] = set()
        self.deadly: set[str] = set()
        self.asked: list[tuple[Kind, Job]] = []

    async def submit(self, kind: Kind, job: Job) -> Reply:
        """A reply, an error of the item, or no reply in time."""
        self.asked.append((kind, job))
        if kind in self.broken:
            raise DeadlineExceeded
        if kind in self.failing:
            return Reply(b"", [0], errors={0: "item_internal"})
        if kind in self.deadly:
            return Reply(b"", [0], errors={0: "item_quarantined"})
        if kind in self.refusing:
            return Reply(b"", [0], errors={0: "image_too_many_pixels"})
        return Reply(b"\0" * 4, [1])


def _health(towers: Towers, served: dict[Kind, float] | None = None, **options: Any) -> Health:
    settings = Settings(**{"probe_interval": 0.2, "timeout": 0.1, **options})
    return Health(settings, towers, {} if served is None else served)  # type: ignore[arg-type]


def test_nothing_is_ready_before_both_towers_answered() -> None:
    """A fresh process says no."""
    with pytest.raises(NotReady):
        _health(Towers(), probe_interval=0.001, timeout=0.001).check()


def test_both_towers_answering_their_first_probe_is_ready() -> None:
    """One text and one picture go the whole way."""
    towers = Towers()
    health = _health(towers)
    asyncio.run(health.first())
    health.check()
    assert sorted(kind for kind, _ in towers.asked) == ["image", "text"]


@pytest.mark.parametrize("kind", ["text", "image"])
@pytest.mark.parametrize("way", ["broken", "failing", "deadly"])
def test_one_sick_tower_is_enough_to_be_unready_and_is_named(kind: Kind, way: str) -> None:
    """No answer, or an answer with an error: neither counts as well."""
    towers = Towers()
    getattr(towers, way).add(kind)
    health = _health(towers, probe_interval=0.01, timeout=0.01)
    asyncio.run(health.first())
    time.sleep(0.03)
    health._answered["text" if kind == "image" else "image"] = time.monotonic() + 9
    with pytest.raises(NotReady, match=kind):
        health.check()


def test_a_tower_without_a_loaded_worker_is_unready_at_once() -> None:
    """The main process says how many workers live."""
    towers = Towers()
    health = _health(towers)
    asyncio.run(health.first())
    towers.live = {"text": 1, "image": 0}
    with pytest.raises(NotReady, match="image"):
        health.check()
    towers.live = {"text": 1, "image": 2}
    health.check()


def test_real_work_counts_as_an_answer_and_saves_the_probe() -> None:
    """A busy tower is not probed."""
    towers = Towers()
    served: dict[Kind, float] = {}
    health = _health(towers, served)

    async def run() -> None:
        await health.first()
        beat = asyncio.create_task(health.run())
        for _ in range(10):
            served["text"] = served["image"] = time.monotonic()
            await asyncio.sleep(0.05)
        beat.cancel()

    asyncio.run(run())
    assert len(towers.asked) == 2
    health.check()


def test_an_idle_tower_is_probed_again() -> None:
    """Silence for the interval brings a probe, and a tower that fell sick is found out."""
    towers = Towers()
    health = _health(towers)

    async def run() -> None:
        await health.first()
        beat = asyncio.create_task(health.run())
        await asyncio.sleep(0.5)
        assert len(towers.asked) >= 4
        towers.broken.add("text")
        await asyncio.sleep(0.8)
        beat.cancel()

    asyncio.run(run())
    with pytest.raises(NotReady, match="text"):
        health.check()


@pytest.mark.parametrize("name", IMAGE_FORMATS)
def test_there_is_a_probe_in_every_format_that_may_be_the_only_one(name: str) -> None:
    """A server that decodes JPEG alone is ready too."""
    reader = PictureReader(PicturePolicy(formats=(name,), max_bytes=400, max_pixels=256))
    (data,) = probe("image", (name,)).items
    assert isinstance(data, bytes)
    assert reader.read(data).size == (16, 16)


def test_a_probe_that_the_limits_refuse_is_an_answer() -> None:
    """The tower looked at it; with pictures of at most ten pixels no probe can pass."""
    towers = Towers()
    towers.refusing.add("image")
    health = _health(towers)
    asyncio.run(health.first())
    health.check()
