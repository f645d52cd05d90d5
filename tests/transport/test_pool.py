"""The pool: work is admitted before it is sent, and measured after."""

import asyncio
import math
from collections.abc import Mapping

import pytest

from litapi.errors import DeadlineExceeded, Overloaded
from litapi.messages import Job, Kind, Reply, joined
from litapi.settings import Settings
from litapi.transport.admission import Admission, cost_of
from litapi.transport.client import Asker, Client
from litapi.transport.pool import AHEAD, PORTION, Capacity, Pool, capacities
from tests.support.patience import settled

pytestmark = pytest.mark.anyio

CUTS = [  # items, what the tower takes, items of each job
    (64, Capacity(64, 2), [64]),
    (100, Capacity(64, 2), [64, 36]),
    (2048, Capacity(64, 2), [64] * 32),
    (600, Capacity(1024, 1), [256, 256, 88]),
    (3, Capacity(1, 8), [1] * 3),
]


class Slow:
    """Stands where the dispatcher does: one token an item, when it is let."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.sent = 0
        self.jobs: list[Job] = []
        self.since = 0.0  # when the last worker that was missing came back

    async def submit(self, kind: Kind, job: Job) -> Reply:
        self.sent += 1
        self.jobs.append(job)
        await self.gate.wait()
        return Reply(b"", [1] * len(job.items), infer_seconds=0.25)

    def whole_since(self, kind: Kind) -> float:
        return self.since

    def depth(self, kind: Kind) -> int:
        return 0

    def oldest(self, kind: Kind) -> float:
        return 0.0


class Heard:
    """Keeps what was measured, by its name."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, float]] = []
        self.gauges: dict[str, int] = {}

    def computed(self, kind: str, bulk: bool, client: str, items: int, reply: Reply) -> None:
        self.seen.append((kind, reply.infer_seconds))
        self.gauges[f"{kind} {client} {bulk}"] = items

    def turned_away(self, client: str, bulk: bool, code: str) -> None:
        self.gauges[f"{client} {code} {bulk}"] = self.gauges.get(f"{client} {code} {bulk}", 0) + 1

    def waiting(self, kind: str, bulk: bool, items: int, age: float) -> None:
        if items:
            self.gauges[f"{kind} waits {bulk}"] = items

    def given_up(self, kind: str, items: int) -> None:
        self.gauges[f"{kind} given up"] = items

    def load(self, kind: str, depth: int, age: float, items: int, refused: int) -> None:
        self.gauges[kind] = items


def _pool(
    slow: Slow, heard: Heard, capacity: Mapping[Kind, Capacity] | None = None, **options: int
) -> Pool:
    settings = Settings(http_workers=1, **options)
    return Pool(settings, slow, heard, capacity=capacity)  # type: ignore[arg-type]


def admission(pool: Pool, kind: Kind) -> Admission:
    """That of interactive work at a tower."""
    return pool._lanes[kind, False].admission


async def test_a_full_tower_refuses_at_once_and_the_other_still_works() -> None:
    """Texts at their bound do not keep images out."""
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
    assert heard.gauges == {"text": 4, "image": 1, " overloaded False": 1}
    slow.gate.set()
    await asyncio.gather(first, image)
    await pool.submit("text", Job(["e"]))


async def test_a_tower_that_lacked_a_worker_is_not_taken_for_a_slow_one() -> None:
    """After a reload nobody is told to come back because of it; what is answered is measured."""
    slow, heard = Slow(), Heard()
    slow.gate.set()
    pool = _pool(slow, heard)
    slow.since = math.inf
    await pool.submit("text", Job(["a"]))
    assert admission(pool, "text").seconds_an_item == 0.0
    slow.since = 0.0
    await pool.submit("text", Job(["a"]))
    assert admission(pool, "text").seconds_an_item > 0.0
    assert heard.seen == [("text", 0.25)] * 2


async def test_what_bulk_is_answered_is_no_sign_of_life_of_the_others() -> None:
    """It may have workers of its own, and `/readyz` speaks for interactive requests."""
    slow = Slow()
    slow.gate.set()
    pool = _pool(slow, Heard())
    await pool.submit("text", Job(["a"]))
    await pool.submit("image", Job([b"x"]), Asker(Client("a", "acme"), bulk=True))
    assert set(pool.served) == {"text"}


async def test_work_that_is_given_up_frees_its_room_and_is_counted() -> None:
    """The clients left: their items are in flight no more, and the pace is not learnt from them."""
    slow, heard = Slow(), Heard()
    pool = _pool(slow, heard)
    task = asyncio.create_task(pool.submit("text", Job(["a", "b"])))
    await asyncio.sleep(0)
    assert admission(pool, "text").items == 2
    task.cancel()
    await asyncio.wait([task])
    assert admission(pool, "text").items == 0
    assert admission(pool, "text").seconds_an_item == 0.0
    assert heard.gauges == {"text given up": 2}


async def test_a_large_job_lets_others_in_between() -> None:
    """Portions go one after another, each counted, and a small job need not wait for the last."""
    slow, heard = Slow(), Heard()
    pool = _pool(slow, heard, max_queue=4096)
    large = asyncio.create_task(pool.submit("image", Job([b"x"] * (5 * PORTION["image"] + 1))))
    await settled()
    assert slow.sent == AHEAD
    small = asyncio.create_task(pool.submit("image", Job([b"y"])))
    await asyncio.sleep(0)
    assert slow.sent == AHEAD + 1
    assert admission(pool, "image").items == 5 * PORTION["image"] + 2
    slow.gate.set()
    await small
    assert (await large).tokens == [1] * (5 * PORTION["image"] + 1)
    assert slow.sent == 7
    assert admission(pool, "image").items == 0


@pytest.mark.parametrize(("items", "capacity", "jobs"), CUTS)
async def test_all_workers_share_a_large_request(
    items: int, capacity: Capacity, jobs: list[int]
) -> None:
    """It is cut into jobs of a batch, and each worker has one and the next one at hand."""
    slow = Slow()
    pool = _pool(slow, Heard(), {"text": capacity})
    asking = asyncio.create_task(pool.submit("text", Job(["a"] * items)))
    await settled()
    assert [len(job.items) for job in slow.jobs] == jobs[: AHEAD * capacity.workers]
    slow.gate.set()
    assert (await asking).tokens == [1] * items
    assert [len(job.items) for job in slow.jobs] == jobs


async def test_a_large_job_ends_whole_when_a_portion_fails_or_nobody_waits() -> None:
    """No portion is sent for a request that has its answer, or whose client has left."""
    for fails in (True, False):
        slow = Failing() if fails else Slow()
        pool = _pool(slow, Heard(), max_queue=4096)
        task = asyncio.create_task(pool.submit("text", Job(["a"] * 2000)))
        await settled()
        if not fails:
            task.cancel()
        await asyncio.wait([task])
        if fails:
            assert isinstance(task.exception(), DeadlineExceeded)
        slow.gate.set()
        await settled()
        assert slow.sent <= AHEAD + 1
        assert admission(pool, "text").items == 0


class Failing(Slow):
    """The first reply does not come in time."""

    async def submit(self, kind: Kind, job: Job) -> Reply:
        if self.sent:
            return await super().submit(kind, job)
        self.sent += 1
        await asyncio.sleep(0)
        raise DeadlineExceeded


async def test_bulk_is_held_until_the_tower_needs_it_and_interactive_work_is_not() -> None:
    """Cut into batches, three of them under way; what a worker took is made good at once."""
    slow, heard = Slow(), Heard()
    pool = _pool(slow, heard)
    pool._lanes["text", True].turns.window = 3 * 64
    bulk = Asker(Client("a", "acme"), bulk=True)
    flood = asyncio.create_task(pool.submit("text", Job(["a"] * 640), bulk))
    await settled()
    assert slow.sent == 3
    pool.observe()
    assert heard.gauges["text waits True"] == 640 - 3 * 64
    search = asyncio.create_task(pool.submit("text", Job(["q"])))
    await settled()
    assert slow.sent == 4
    assert [job.bulk for job in slow.jobs] == [True, True, True, False]
    slow.gate.set()
    await search
    assert (await flood).tokens == [1] * 640
    assert heard.gauges["text acme True"] == 640


async def test_a_flood_in_bulk_leaves_room_for_interactive_work() -> None:
    """It may fill half of the bounds, and is refused by name beyond that."""
    slow, heard = Slow(), Heard()
    pool = _pool(slow, heard, max_queue=8)
    bulk = Asker(Client("a", "acme"), bulk=True)
    tasks = [asyncio.create_task(pool.submit("text", Job(["a"] * 4), bulk))]
    await settled()
    with pytest.raises(Overloaded):
        await pool.submit("text", Job(["b"]), bulk)
    assert heard.gauges["acme overloaded True"] == 1
    tasks.append(asyncio.create_task(pool.submit("text", Job(["c"] * 8))))
    await settled()
    slow.gate.set()
    await asyncio.gather(*tasks)


def test_what_a_tower_takes_is_what_its_workers_told() -> None:
    """Batches of the smallest of them, for as many as there are."""
    workers = [
        {"tower": "text", "batch_budget": 640},
        {"tower": "text", "batch_budget": 6400},
        {"tower": "image", "batch_budget": 100},
    ]
    assert capacities(workers, 64, 256) == {"text": Capacity(10, 2), "image": Capacity(1, 1)}


def test_replies_to_portions_are_one_reply() -> None:
    """Rows, faults and cuts in their places, also where a portion has no row at all."""
    first = Reply(b"aabb", [1, 2], truncated=[1], errors={}, queue_seconds=0.5, infer_seconds=1.0)
    refused = Reply(b"", [0], errors={0: "item_quarantined"})
    last = Reply(b"cc", [3], truncated=[0], queue_seconds=0.25, infer_seconds=2.0)
    assert joined([first, refused, last]) == Reply(
        b"aabb\0\0cc",
        [1, 2, 0, 3],
        truncated=[1, 3],
        errors={2: "item_quarantined"},
        queue_seconds=0.5,
        infer_seconds=3.0,
    )


def test_the_bounds_are_shared_out_among_the_http_processes() -> None:
    """Four processes with a bound of 100 items hold 25 each."""
    settings = Settings(http_workers=4, max_queue=100)
    pool = Pool(settings, None, None)  # type: ignore[arg-type]
    assert admission(pool, "text").max_items == 25


async def test_admission_counts_what_patches_cost() -> None:
    """Two pictures of many patches fill the room of many usual ones; texts cost what they did."""
    slow, heard = Slow(), Heard()
    pool = _pool(slow, heard, max_queue=100)
    tasks = [
        asyncio.create_task(pool.submit("image", Job([b"x"] * 2, patches)))
        for patches in (0, 256, 4096)
    ]
    await asyncio.sleep(0)
    assert admission(pool, "image").items == 2 + 2 + 2 * cost_of(4096, 256)
    with pytest.raises(Overloaded):
        await pool.submit("image", Job([b"x"] * 2, 4096))
    slow.gate.set()
    await asyncio.gather(*tasks)
    assert admission(pool, "image").items == 0
