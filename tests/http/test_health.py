"""Health: ready means that both towers really answered, not that a process exists."""

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
from tests.support.patience import until

pytestmark = pytest.mark.anyio

BUSY = time.monotonic() + 1e6  # a tower that has always just answered


class Towers:
    """Stands where the dispatcher does; a tower answers, refuses by a code or is "silent"."""

    def __init__(self, **refusing: str) -> None:
        self.live: dict[str, int] = {}
        self.refusing = refusing
        self.asked: list[Kind] = []

    async def submit(self, kind: Kind, job: Job) -> Reply:
        """A reply, an error of the item, or no reply in time."""
        self.asked.append(kind)
        code = self.refusing.get(kind)
        if code == "silent":
            raise DeadlineExceeded
        return Reply(b"", [0], errors={0: code}) if code else Reply(b"\0" * 4, [1])


def _health(towers: Towers, served: dict[Kind, float] | None = None, **options: Any) -> Health:
    settings = Settings(**{"probe_interval": 60.0, "timeout": 60.0, **options})
    return Health(settings, towers, {} if served is None else served)  # type: ignore[arg-type]


def test_nothing_is_ready_before_both_towers_answered() -> None:
    """One text and one picture go the whole way; what the limits refuse was looked at too."""
    with pytest.raises(NotReady):
        _health(Towers(), probe_interval=0.001, timeout=0.001).check()
    for towers in (Towers(), Towers(image="image_too_many_pixels")):
        health = _health(towers)
        asyncio.run(health.first())
        health.check()
        assert sorted(towers.asked) == ["image", "text"]


@pytest.mark.parametrize("kind", ["text", "image"])
@pytest.mark.parametrize("way", ["silent", "item_internal", "item_quarantined"])
def test_one_sick_tower_is_enough_to_be_unready_and_is_named(kind: Kind, way: str) -> None:
    """No answer, or an answer with an error: neither counts as well."""
    other: Kind = "text" if kind == "image" else "image"
    health = _health(Towers(**{kind: way}), {other: BUSY})
    asyncio.run(health.first())
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


async def test_an_idle_tower_is_probed_again_and_a_busy_one_is_not() -> None:
    """Silence for the interval brings a probe, real work saves it; one that fell sick is found."""
    towers, served = Towers(), dict[Kind, float]()
    health = _health(towers, served, probe_interval=0.2, timeout=0.1)

    def sick() -> bool:
        try:
            health.check()
        except NotReady as refusal:
            return "text" in str(refusal)
        return False

    await health.first()
    served["image"] = BUSY
    beat = asyncio.create_task(health.run())
    await until(lambda: towers.asked.count("text") >= 3)
    assert towers.asked.count("image") == 1
    towers.refusing["text"] = "silent"
    await until(sick)
    beat.cancel()


@pytest.mark.parametrize("name", IMAGE_FORMATS)
def test_there_is_a_probe_in_every_format_that_may_be_the_only_one(name: str) -> None:
    """A server that decodes JPEG alone is ready too."""
    reader = PictureReader(PicturePolicy(formats=(name,), max_bytes=400, max_pixels=256))
    (data,) = probe("image", (name,)).items
    assert isinstance(data, bytes)
    assert reader.read(data).size == (16, 16)
