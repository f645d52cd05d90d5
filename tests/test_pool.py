"""The pool: work is admitted before it is sent, and measured after."""

from __future__ import annotations

import asyncio

import pytest

from litapi.errors import Overloaded
from litapi.messages import Job, Kind, Reply
from litapi.pool import Pool
from litapi.settings import Settings


class Slow:
    """Stands where the dispatcher does: answers when it is let."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.sent = 0

    async def submit(self, kind: Kind, job: Job) -> Reply:
        """A reply of one token an item, once the gate is open."""
        self.sent += 1
        await self.gate.wait()
        return Reply(b"", [1] * len(job.items), infer_seconds=0.25)

    def depth(self, kind: Kind) -> int:
        """Nothing waits."""
        return 0

    def oldest(self, kind: Kind) -> float:
        """No age."""
        return 0.0


class Heard:
    """Keeps what was measured."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, float]] = []
        self.gauges: dict[str, int] = {}

    def stages(self, kind: str, queue: float, decode: float, infer: float) -> None:
        """One job."""
        self.seen.append((kind, infer))

    def load(self, kind: str, depth: int, age: float, items: int, refused: int) -> None:
        """One reading."""
        self.gauges[kind] = items


def _pool(slow: Slow, heard: Heard, **options: int) -> Pool:
    settings = Settings(http_workers=1, **options)
    return Pool(settings, slow, heard)  # type: ignore[arg-type]


def test_a_full_tower_refuses_at_once_and_the_other_still_works() -> None:
    """Texts at their bound do not keep images out."""

    async def run() -> None:
        slow, heard = Slow(), Heard()
        pool = _pool(slow, heard, max_queue=4)
        first = asyncio.create_task(pool.submit("text", Job(["a", "b", "c", "d"])))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await pool.submit("text", Job(["e"]))
        image = asyncio.create_task(pool.submit("image", Job([b"x"])))
        await asyncio.sleep(0)
        assert slow.sent == 2
        pool.observe()
        assert heard.gauges == {"text": 4, "image": 1}
        slow.gate.set()
        await asyncio.gather(first, image)
        await pool.submit("text", Job(["e"]))

    asyncio.run(run())


def test_what_is_answered_is_measured_and_remembered() -> None:
    """Stage seconds go to the metrics, the moment to the health check."""

    async def run() -> None:
        slow, heard = Slow(), Heard()
        slow.gate.set()
        pool = _pool(slow, heard)
        await pool.submit("image", Job([b"x"]))
        assert heard.seen == [("image", 0.25)]
        assert set(pool.served) == {"image"}

    asyncio.run(run())


def test_the_bounds_are_shared_out_among_the_http_processes() -> None:
    """Four processes with a bound of 100 items hold 25 each."""
    settings = Settings(http_workers=4, max_queue=100)
    pool = Pool(settings, None, None)  # type: ignore[arg-type]
    assert pool.admissions["text"].max_items == 25
