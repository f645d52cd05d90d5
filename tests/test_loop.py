"""The pipelined loop: batches across requests, errors alone, nothing waits for nothing."""

import functools
import itertools
import logging
import math
import os
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from litapi import loop
from litapi.checkpoint import DEMO, Checkpoint
from litapi.errors import ItemError
from litapi.loop import AHEAD, LONG, SHORT, Decoders, Pipeline, Ready, Shelf, Ticket
from litapi.messages import NO_ID, Job, JobId, Reply
from litapi.model.engines.slots import Collect
from litapi.provoke import MARK
from litapi.settings import Settings
from litapi.towers import Batch, Decoded, Embedded, ImageTower, Rows, TextTower, Tower
from litapi.transport.port import Answered, PortClosed
from litapi.transport.vitals import urgency
from tests.support.late import LateStream, late
from tests.support.patience import awaited
from tests.support.picture import picture

CHECKPOINT = Checkpoint.open(DEMO)
CLOSE = (-1, -1)
LATE = {"engine": "torch"}
T = TypeVar("T", bound=Tower)


class Port:
    """The two ends of a worker, in one process."""

    worker: threading.Thread

    def __init__(self) -> None:
        self.jobs: tuple[queue.SimpleQueue[Job], ...] = queue.SimpleQueue(), queue.SimpleQueue()
        self.lanes = len(self.jobs)
        self.replies: queue.SimpleQueue[tuple[JobId, Reply]] = queue.SimpleQueue()
        self.together: list[int] = []
        self.left: set[JobId] = set()  # the jobs that nobody waits for

    def fetch(self, lane: int = 0) -> Job:
        """The next job, or the end of them."""
        job = self.jobs[lane].get()
        if job.id == CLOSE:
            raise PortClosed
        return job

    def begin(self, job_id: JobId) -> bool:
        return job_id not in self.left

    def send(self, replies: Sequence[Answered]) -> None:
        self.together.append(len(replies))
        for answered in replies:
            self.replies.put(answered)

    def put(self, *jobs: Job) -> None:
        for number, job in enumerate(jobs):
            job.sent = time.monotonic()
            job.id = 0, number
            self.jobs[job.bulk].put(job)

    def get(self, many: int) -> dict[int, Reply]:
        replies = [self.replies.get(timeout=60) for _ in range(many)]
        return {number: reply for (_, number), reply in replies}

    def ask(self, *jobs: Job) -> dict[int, Reply]:
        self.put(*jobs)
        return self.get(len(jobs))


class RecordingTextTower(TextTower):
    """The real tower, keeping how many items each batch had."""

    def __init__(self, settings: Settings, checkpoint: Checkpoint) -> None:
        super().__init__(settings, checkpoint)
        self.sizes: list[int] = []

    def submit(self, batch: Batch) -> Callable[[], list[Rows]]:
        self.sizes.append(len(batch.values))
        return super().submit(batch)


def _tower(kind: type[T], **options: Any) -> T:
    return kind(Settings.model_validate({"precision": "float32", **options}), CHECKPOINT)


def _small(kind: type[T], **options: Any) -> T:
    """A text tower with batches of four, and test hooks."""
    return _tower(kind, text_batch_tokens=4 * 64, test_hooks="on", **options)


def _running(tower: Tower, port: Port | None = None) -> Port:
    """A worker under way, as what it fetches from and sends to."""
    port = port or Port()
    tower.setup("cpu")
    port.worker = threading.Thread(target=Pipeline(tower, port).run, daemon=True)  # type: ignore[arg-type]
    port.worker.start()
    return port


@pytest.fixture(scope="module")
def tower() -> RecordingTextTower:
    return _small(RecordingTextTower)


@pytest.fixture(scope="module")
def text(tower: RecordingTextTower) -> Port:
    return _running(tower)


@pytest.fixture(scope="module")
def image() -> Port:
    return _running(_tower(ImageTower))


def _rows(reply: Reply) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.frombuffer(reply.vectors, "<f4").reshape(len(reply.tokens), -1)


def _have_norms(reply: Reply, *norms: float) -> bool:
    return np.allclose(np.linalg.norm(_rows(reply), axis=1), norms, atol=1e-5)


def test_every_job_gets_one_reply_with_its_own_rows(text: Port) -> None:
    """40 jobs of different sizes at once, each answered in its own order."""
    jobs = [Job([f"{n} red stars {i}" for i in range(n % 5 + 1)]) for n in range(40)]
    together = text.ask(*jobs)
    for number in (0, 7, 39):
        alone = text.ask(Job(jobs[number].items))[0]
        assert np.allclose(_rows(together[number]), _rows(alone), atol=1e-5)


def test_batches_form_across_requests_up_to_the_budget(
    tower: RecordingTextTower, text: Port
) -> None:
    """64 jobs of one text: what a batch makes whole is one message; a large job is spread."""
    tower.sizes.clear()
    text.together.clear()
    text.ask(*(Job([f"text {n}"]) for n in range(64)))
    assert sum(tower.sizes) == 64
    assert sorted(text.together) == sorted(tower.sizes)
    assert len(tower.sizes) < 64
    reply = text.ask(Job([f"text {n}" for n in range(100)]))[0]
    assert max(tower.sizes) <= 4
    assert _have_norms(reply, *[1] * 100)
    assert min(reply.infer_seconds, reply.decode_seconds) > 0
    assert reply.queue_seconds >= 0


class Activations:
    """What a batch holds of a card's memory while it is computed."""


class StarvedTower(TextTower):
    """The real tower on a card that has room for one text at a time."""

    held: weakref.ref[Activations]

    def relieve(self) -> None:
        """Whether anything can be given back by now."""
        self.free = "no" if self.held() else "yes"
        super().relieve()

    def _submit(self, values: list[Any]) -> Collect:
        if len(values) == 1:
            return super()._submit(values)
        activations = Activations()
        self.held = weakref.ref(activations)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_a_batch_without_memory_holds_none_while_its_items_are_computed_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing of it hangs on the error, and what it took is given back before the first item."""
    caplog.set_level(logging.CRITICAL, "siglit.loop")  # pytest would keep the error with its log
    tower = _tower(StarvedTower)
    replies = _running(tower).ask(Job(["a", "b", "c"]))
    assert replies[0].errors == {}
    assert _have_norms(replies[0], 1, 1, 1)
    assert tower.free == "yes"


def test_a_job_that_nobody_waits_for_is_dropped_early(
    tower: RecordingTextTower, text: Port
) -> None:
    """Before it is decoded, as are late ones, which are told so; the others are answered."""
    tower.sizes.clear()
    text.left = {(0, 1)}
    late = Job(["too", "late"], deadline=time.monotonic() - 1)
    try:
        replies = text.ask(Job(["a"]), Job(["nobody's"] * 9), Job(["c"]), late, Job([]))
    finally:
        text.left = set()
    assert sum(tower.sizes) == 2
    assert [replies[number].errors for number in (0, 2, 4)] == [{}, {}, {}]
    assert replies[3].errors == {0: "deadline_exceeded", 1: "deadline_exceeded"}
    assert replies[4].vectors == b""
    assert _have_norms(replies[2], 1)


def test_a_damaged_image_among_many_jobs_harms_nobody(image: Port) -> None:
    """Damaged and good pictures in turn: the good ones are right, each damaged one is named."""
    jobs = [Job([picture(n), picture(n)[: 300 + n], picture(n + 1)]) for n in range(12)]
    replies = image.ask(*jobs)
    alone = _rows(image.ask(Job([picture(5)]))[0])[0]
    junk = image.ask(Job([b"x", b"y"]))[0]  # needs no model
    assert (set(junk.errors), _have_norms(junk, 0, 0)) == ({0, 1}, True)
    assert replies[0].errors[1] == "image_undecodable"
    assert [list(replies[number].errors) for number in range(12)] == [[1]] * 12
    assert np.allclose(_rows(replies[5])[0], alone, atol=1e-5)
    assert np.allclose(_rows(replies[4])[2], alone, atol=1e-5)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads share their priority")
def test_decoding_yields_to_the_model() -> None:
    """The pool's threads are nicer than the model's, which stays as the process was."""
    nice: dict[str, int] = {}

    class Watched(ImageTower):
        def decode_request(self, request: Job) -> list[Decoded | ItemError]:
            nice["decode"] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
            return super().decode_request(request)

        def submit(self, batch: Batch) -> Callable[[], list[Rows]]:
            nice["model"] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
            return super().submit(batch)

    _running(_tower(Watched)).ask(Job([picture(1)]))
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    assert nice == {"decode": usual + loop.YIELDING, "model": usual}


def test_pictures_of_different_patch_counts_have_their_own_vectors(image: Port) -> None:
    """Budgets count padding; the vectors do not depend on the neighbours' sizes."""
    mixed = image.ask(*(Job([picture(1)], max_num_patches=n) for n in (0, 16, 64, 256)))
    for number, patches in enumerate((0, 16, 64)):
        alone = image.ask(Job([picture(1)], max_num_patches=patches))[0]
        assert float(_rows(mixed[number])[0] @ _rows(alone)[0]) > 0.999999


class LateTower(RecordingTextTower):
    """The real tower on a device that is as late as it may be, its slots spoilt when free."""

    def setup(self, device: str) -> None:
        super().setup(device)
        self._encoder = late(self._encoder)
        self.depth, self.pulses = 2, list[float]()

    def pulse(self, since: float) -> None:
        self.pulses.append(since)

    @property
    def card(self) -> LateStream:
        stream: LateStream = self._encoder.engine.stream  # type: ignore[attr-defined]
        return stream


@pytest.mark.parametrize(("kind", "engine"), [(RecordingTextTower, {}), (LateTower, LATE)])
def test_an_item_that_fails_in_the_model_fails_alone(kind: type[Tower], engine: Any) -> None:
    """The batch that raised is computed again item by item; whatever was in it, behind it or, where
    two are under way, beside it is as it was."""
    raising = {number for number in range(40) if number % 7 == 3}
    texts = [f"{MARK}raise" if number in raising else f"text {number}" for number in range(40)]
    replies = _running(_small(kind, **engine)).ask(*(Job(["a", text, "b"]) for text in texts))
    for number, reply in replies.items():
        assert reply.errors == ({1: "item_internal"} if number in raising else {})
        assert _have_norms(reply, 1, number not in raising, 1)


def test_two_batches_under_way_give_each_job_its_own_rows() -> None:
    """To the bit as one after the other."""
    port, tower = Port(), _small(LateTower, **LATE)
    jobs = [Job([f"{n} red stars"]) for n in range(40)]
    port.put(*jobs)  # before anything runs, so that the shelf fills
    replies = _running(tower, port).get(40)
    assert tower.card.most == 2
    assert tower.pulses[-1] == 0.0
    assert tower.pulses.count(0.0) < len(tower.sizes)  # none while another batch is in the model
    plain = _small(TextTower, **LATE)
    plain.setup("cpu")
    numbers = iter(range(40))
    for size in tower.sizes:  # batches take the jobs as they came
        group = list(itertools.islice(numbers, size))
        decoded = plain.decode_request(Job([str(jobs[number].items[0]) for number in group]))
        (rows,) = plain.submit(plain.batch([decoded]))()
        expected = [row.vector for row in rows if isinstance(row, Embedded)]
        found = np.concatenate([_rows(replies[number]) for number in group])
        assert np.array_equal(found, expected)


def test_what_was_taken_before_the_end_is_answered() -> None:
    """A port that closes with one batch under way and others waiting loses no reply."""
    port = Port()
    port.put(*(Job([f"text {number}"]) for number in range(30)))
    for jobs in port.jobs:
        jobs.put(Job([], id=CLOSE))
    replies = _running(_small(LateTower, **LATE), port).get(30)
    assert sorted(replies) == list(range(30))
    port.worker.join(60)
    assert not port.worker.is_alive()


def _ready(cost: int, bulk: bool = False) -> Ready:
    ticket = Ticket(NO_ID, math.inf, 0.0, bulk, [], 0)
    return Ready(ticket, 0, Decoded(None, cost, cost, False))


def _classes(batch: list[Ready]) -> str:
    return "".join("bulk" if one.ticket.bulk else "i" for one in batch)


def test_interactive_work_overtakes_bulk_and_shares_no_batch_with_it() -> None:
    """It waits for no more than the batch that is in the model."""
    shelf = Shelf(budget=30)
    shelf.add([_ready(10, bulk=True) for _ in range(6)], 0, bulk=True)
    assert len(shelf.take()) == 3
    shelf.add([_ready(10), _ready(10)], 0)
    assert [_classes(shelf.take()) for _ in range(2)] == ["ii", "bulkbulkbulk"]


def test_bulk_batches_are_short_while_there_is_interactive_work() -> None:
    """As takes `SHORT` seconds at the pace of the last batches, and `LONG` where there is none."""
    shelf = Shelf(budget=100)
    shelf.add([_ready(10, bulk=True) for _ in range(30)], 0, bulk=True)
    batch = shelf.take()
    assert len(batch) == 10
    shelf.release(batch, 100 * LONG / 80)  # 80 tokens in that time
    assert len(shelf.take()) == 8
    shelf.add([_ready(10)], 0)
    shelf.take()
    assert len(shelf.take()) == int(8 * SHORT / LONG)


def test_bulk_that_has_waited_for_long_goes_first_once() -> None:
    """Full interactive load leaves it a batch now and then."""
    shelf = Shelf(budget=20)
    shelf.add([_ready(10) for _ in range(8)], 0)
    shelf.add([_ready(10, bulk=True) for _ in range(8)], 0, bulk=True)
    assert _classes(shelf.take()) == "ii"
    shelf._bulk -= 2 * loop.STARVING
    assert [_classes(shelf.take()) for _ in range(2)] == ["bulkbulk", "ii"]


def test_bulk_waits_while_a_neighbour_on_the_device_has_interactive_work() -> None:
    """And begins once that is done; interactive work does not wait."""
    mine, neighbour = urgency(["cpu", "cpu"])
    shelf = Shelf(20, mine)
    neighbour.say(True)
    shelf.add([_ready(10, bulk=True)], 0, bulk=True)
    taken: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=lambda: taken.put(_classes(shelf.take())), daemon=True).start()
    with pytest.raises(queue.Empty):
        taken.get(timeout=0.1)
    neighbour.say(False)
    assert taken.get(timeout=60) == "bulk"
    neighbour.say(True)
    batch = [_ready(10)]
    shelf.add(batch, 0)
    assert neighbour.elsewhere()
    assert shelf.take() == batch
    shelf.release(batch)
    assert not neighbour.elsewhere()


@pytest.mark.parametrize(
    ("ready", "under_way", "taken"), [(2, 30, 0), (3, 30, 3), (9, 30, 4), (9, 500, 4), (0, 10, 0)]
)
def test_a_batch_is_begun_early_where_enough_is_ready(
    ready: int, under_way: int, taken: int
) -> None:
    """As much as is under way, or a whole batch; less waits, and takes in what comes meanwhile."""
    shelf = Shelf(budget=40, depth=2)
    shelf.add([_ready(10) for _ in range(ready)], 0)
    assert len(shelf.take(under_way)) == taken


def test_bulk_is_begun_early_only_where_there_is_no_interactive_work() -> None:
    """Which waits for one batch; and two of them together are as long as one alone would be."""
    shelf = Shelf(budget=100, depth=2)
    shelf.add([_ready(10, bulk=True) for _ in range(40)], 0, bulk=True)
    shelf.release(shelf.take(), 100 * LONG / 80)
    assert [len(shelf.take()), len(shelf.take(40))] == [4, 4]
    shelf.add([_ready(10)], 0)
    assert _classes(shelf.take(10)) == "i"
    assert shelf.take(10) == []
    shelf._interactive -= 2 * loop.RECENT
    assert len(shelf.take(10)) == 4


def _waits(gate: threading.Event) -> None:
    assert gate.wait(60)


def test_bulk_that_fills_a_worker_keeps_no_interactive_work_out() -> None:
    """Each class has room of its own, and is decoded in its order."""
    shelf = Shelf(budget=10)
    for _ in range(AHEAD):
        shelf.reserve(10, bulk=True)
    shelf.reserve(10)
    decoders, order = Decoders(1), list[str]()
    gate, done = threading.Event(), threading.Event()
    decoders.submit(False, functools.partial(_waits, gate))
    decoders.submit(True, done.set)
    decoders.submit(True, lambda: order.append("bulk"))
    decoders.submit(False, lambda: order.append("i"))
    gate.set()
    decoders.close()
    assert (order, done.is_set()) == (["i", "bulk"], True)


@pytest.mark.parametrize(
    ("budget", "costs", "batches"),
    [(35, [10] * 10, [3, 3, 3, 1]), (100, [10, 10, 90], [2, 1]), (5, [50, 1], [1, 1])],
)
def test_a_batch_is_first_come_first_served_within_the_budget(
    budget: int, costs: list[int], batches: list[int]
) -> None:
    """It counts as padded to its tallest: a tall item late in line is left for the next batch; one
    over the budget goes alone."""
    shelf, items = Shelf(budget), [_ready(cost) for cost in costs]
    shelf.add(items, 0)
    taken = [shelf.take() for _ in batches]
    assert [len(batch) for batch in taken] == batches
    assert [item for batch in taken for item in batch] == items


def _as_they_came(items: list[int], budget: int) -> list[list[int]]:
    """Batches in the order of arrival, padded to their tallest, as large as the budget allows."""
    batches: list[list[int]] = []
    for cost in items:
        if batches and max(*batches[-1], cost) * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(cost)
        else:
            batches.append([cost])
    return batches


def _padding(batches: list[list[int]]) -> float:
    """The part of what is computed that is padding."""
    computed = sum(max(batch) * len(batch) for batch in batches)
    return 1 - sum(map(sum, batches)) / computed


@pytest.mark.parametrize("many", [8, 64, 200])
@pytest.mark.parametrize("budget", [512, 4096, 16384])
def test_items_of_like_cost_go_together_and_none_starves(budget: int, many: int) -> None:
    """A drawn mix of patch limits, `many` of them ready at a time: half the padding at most, and
    whatever is ready first is in the next batch."""
    random = np.random.default_rng(budget + many)
    limits = random.choice([64, 256, 256, 576, 1024], 2000)
    costs = [
        int(limit * share)
        for limit, share in zip(limits, random.uniform(0.93, 1, 2000), strict=True)
    ]
    shelf, coming, batches = Shelf(budget), [_ready(cost) for cost in costs], list[list[Ready]]()
    waiting: list[Ready] = []
    while coming or waiting:
        fresh, coming = coming[: many - len(waiting)], coming[many - len(waiting) :]
        shelf.add(fresh, 0)
        waiting += fresh
        batch = shelf.take()
        assert waiting[0] in batch
        assert max(one.decoded.cost for one in batch) * len(batch) <= budget or len(batch) == 1
        waiting = [one for one in waiting if one not in batch]
        batches.append(batch)
    found = [[one.decoded.cost for one in batch] for batch in batches]
    assert sorted(cost for batch in found for cost in batch) == sorted(costs)
    assert all(max(batch) * len(batch) - sum(batch) <= budget // loop.SPARE for batch in found)
    assert _padding(found) <= _padding(_as_they_came(costs, budget)) / 2


@pytest.mark.parametrize(
    ("budget", "held", "more"),
    [
        (10, [(10, 0)] * AHEAD, (10, 0)),
        (
            10**9,
            [(1, loop.AHEAD_BYTES - 1), (1, loop.AHEAD_BYTES)],
            (1, 1),
        ),  # past the bound
    ],
    ids=["patches", "bytes"],
)
def test_a_worker_holds_no_more_than_it_can_use_soon(
    budget: int, held: list[tuple[int, int]], more: tuple[int, int]
) -> None:
    """Fetching waits once enough is held, so idle workers get the rest, and goes on after."""
    shelf = Shelf(budget)
    for cost, size in held:
        shelf.reserve(cost, size)
    waiting = threading.Thread(target=shelf.reserve, args=more, daemon=True)
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    shelf.add([_ready(held[-1][0])], *held[-1])
    shelf.release(shelf.take())
    waiting.join(60)
    assert not waiting.is_alive()


def test_a_worker_keeps_no_bytes_of_what_it_has_decoded(image: Port) -> None:
    """A job that waits for its last image does not hold the others."""
    data = picture(77)
    before = sys.getrefcount(data)
    image.ask(Job([data]))
    awaited(lambda: sys.getrefcount(data) == before)


def _wakings() -> dict[str, str]:
    """How often each thread of this process has waited for something."""
    files = Path("/proc/self/task").glob("*/status")
    return {one.parent.name: one.read_text().partition("\nvoluntary_ctxt")[2] for one in files}


def test_an_idle_worker_uses_no_cpu(image: Port) -> None:
    """Waiting is blocking, not polling: none of its threads wakes while another worker works."""
    work = Job([picture(n) for n in range(8)])
    image.ask(work)
    others = _wakings()
    _running(_tower(TextTower)).ask(Job(["a"]))
    idle = _wakings().keys() - others.keys()
    assert idle

    def still() -> bool:
        before = _wakings()
        image.ask(work)
        after = _wakings()
        return all(before[thread] == after[thread] for thread in idle)

    awaited(still)
