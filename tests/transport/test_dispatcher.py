"""A dispatcher loses nothing: on real channels, with workers that a test plays by hand."""

import asyncio
import contextlib
import itertools
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import pytest

from litapi.errors import DeadlineExceeded, Overloaded
from litapi.messages import Job, Kind, Reply
from litapi.transport.channel import Channel
from litapi.transport.dispatcher import LIVE, LOST, Dispatcher, Pending
from litapi.transport.ledger import Ledger
from litapi.transport.port import REPLIES, WorkerPort
from tests.support.patience import until

pytestmark = pytest.mark.anyio
DIM = 4


def _reply(job: Job) -> Reply:
    rows = [np.full(DIM, len(item), "<f4").tobytes() for item in job.items]
    return Reply(b"".join(rows), [len(item) for item in job.items])


def _rows(reply: Reply) -> list[float]:
    rows: list[float] = np.frombuffer(reply.vectors, "<f4").reshape(-1, DIM)[:, 0].tolist()
    return rows


def in_thread(work: Callable[[], None]) -> threading.Thread:
    """Run `work` until it is done or the queues go away."""

    def run() -> None:
        with contextlib.suppress(EOFError, OSError):
            work()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


class Bench:
    """One tower's queues, its dispatcher, and workers that a test plays by hand."""

    def __init__(self) -> None:
        self.jobs, self.bulk, self.inbox = Channel(), Channel(), Channel()
        self.ledger = Ledger()
        self.lanes = self.jobs, self.bulk
        queues = {"text": self.lanes, "image": self.lanes}
        self.dispatcher = Dispatcher(queues, self.inbox, 0, self.ledger)

    def port(self, worker: int) -> WorkerPort:
        """The port of a worker with that number."""
        return WorkerPort(worker, self.lanes, [self.inbox], self.ledger)

    def ask(
        self, *items: str | bytes, kind: Kind = "text", seconds: float = 30.0
    ) -> asyncio.Task[Reply]:
        """A job of these items, submitted."""
        job = Job(cast("Any", list(items)), deadline=time.monotonic() + seconds)
        return asyncio.ensure_future(self.dispatcher.submit(kind, job))

    async def fetch(self, worker: int) -> Job:
        """The next job that has items, as that worker gets it."""
        while not (job := await asyncio.to_thread(self.port(worker).fetch)).items:
            pass
        return job

    async def begin(self, worker: int) -> Job:
        """The same, and the worker begins with it."""
        job = await self.fetch(worker)
        assert self.ledger.begin(job.id)
        return job

    def lose(self, worker: int) -> None:
        """That worker died, as the main process says it."""
        self.inbox.put((LOST, ("text", None), worker))

    def in_flight(self) -> int:
        """Items that are submitted and not yet answered."""
        return sum(len(p.job.items) for p in self.under_way)

    def heard_of_a_loss(self) -> bool:
        """Whether the dispatcher was told of one, and not yet of the worker that came instead."""
        return math.inf in self.dispatcher._whole.values()

    def answer(self, *jobs: Job, worker: int = 0) -> None:
        """A worker's replies, sent together."""
        self.port(worker).send([(job.id, _reply(job)) for job in jobs])

    def work(self, worker: int, jobs: int = 9) -> threading.Thread:
        """A worker that answers that many jobs and ends."""

        def run() -> None:
            for _ in range(jobs):
                self.answer(self.port(worker).fetch(), worker=worker)

        return in_thread(run)

    @property
    def under_way(self) -> list[Pending]:
        """The jobs of the dispatcher, without probes."""
        return [p for p in self.dispatcher._pending.values() if p.job.items]

    def close(self) -> None:
        """End the workers that still wait."""
        for channel in self.lanes:
            channel._out.shutdown(socket.SHUT_RDWR)
            channel._in.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def laid() -> Iterator[Bench]:
    """Queues of their own for each test."""
    bench = Bench()
    yield bench
    bench.close()


@pytest.fixture
async def bench(laid: Bench) -> Bench:
    """The same, with a dispatcher that receives."""
    laid.dispatcher.start()
    return laid


async def test_a_job_goes_out_as_one_message_and_its_reply_comes_back(bench: Bench) -> None:
    """One message for 64 items; rows in order."""
    asked = bench.ask(*("x" * (n + 1) for n in range(64)))
    await until(lambda: not bench.jobs.empty())
    assert (bench.dispatcher.depth("text"), bench.in_flight()) == (1, 64)
    bench.work(0, 1)
    assert _rows(await asked) == list(range(1, 65))


async def test_many_jobs_at_once_each_get_their_own_reply(bench: Bench) -> None:
    """300 concurrent jobs over three workers, none mixed up."""
    for worker in range(3):
        bench.work(worker, 100)
    replies = await asyncio.gather(*(bench.ask("y" * (n % 50 + 1)) for n in range(300)))
    assert [reply.tokens[0] for reply in replies] == [n % 50 + 1 for n in range(300)]
    assert bench.in_flight() == 0


async def test_replies_that_are_sent_together_reach_their_own_callers(laid: Bench) -> None:
    """One message for those of one HTTP process, and no other: each wakes its event loop."""
    together = asyncio.gather(*(laid.ask("y" * (n + 1)) for n in range(40)))
    fetched = [await laid.fetch(4) for _ in range(40)]
    assert laid.inbox.empty()
    assert laid.dispatcher.depth("text") == 0
    laid.answer(*fetched, worker=4)
    (message,) = list(laid.inbox.take(99))
    laid.dispatcher.start()
    laid.inbox.put(message)
    assert [reply.tokens for reply in await together] == [[n + 1] for n in range(40)]


def test_replies_go_to_the_process_that_asked_in_messages_of_bounded_size() -> None:
    """Two processes and vectors of 10 KB: a few to a message, in order, each at its own inbox."""
    inboxes, ledger = [Channel(), Channel()], Ledger(2)
    port = WorkerPort(0, [Channel()], inboxes, ledger)
    slots = [ledger.slots(process) for process in range(2)]
    ids = [slots[n % 2].take() for n in range(16)]
    port.send([(job_id, Reply(bytes(10_000), [1])) for job_id in ids])
    for process, inbox in enumerate(inboxes):
        messages = list(inbox.take(99))
        assert {status for status, _, _ in messages} == {REPLIES}
        assert [len(replies) for _, replies, _ in messages] == [4, 4]
        assert [one for _, replies, _ in messages for one, _ in replies] == ids[process::2]
        inbox.close()


async def test_a_job_that_nobody_answers_ends_with_its_deadline(bench: Bench) -> None:
    """A stuck worker costs the job, not the caller, and nothing stays behind."""
    with pytest.raises(DeadlineExceeded):
        await bench.ask("a", seconds=0.1)
    assert bench.in_flight() == 0


async def test_a_job_beyond_the_ledger_is_refused_and_one_of_its_slots_serves_the_next(
    bench: Bench,
) -> None:
    """As any work beyond a bound: come back shortly."""
    bench.dispatcher._slots._free[1:] = []
    first = bench.ask("abc")
    await until(lambda: bench.dispatcher.depth("text") == 1)
    with pytest.raises(Overloaded):
        await bench.ask("de")
    bench.work(0)
    assert (await first).tokens == [3]
    assert (await bench.ask("de")).tokens == [2]


async def test_the_jobs_of_a_dead_worker_are_sent_again(bench: Bench) -> None:
    """A worker that took a job and died is replaced; its job is answered by the next."""
    asked = bench.ask("abc", "de")
    await bench.fetch(0)  # and then it dies
    bench.lose(0)
    bench.work(1)
    assert (await asked).tokens == [3, 2]


async def test_jobs_of_living_workers_are_left_alone_when_another_dies(bench: Bench) -> None:
    """Only what the dead worker held is sent again."""
    asked = bench.ask("abc")
    job = await bench.fetch(1)
    bench.lose(0)
    await until(lambda: bench.heard_of_a_loss())
    assert bench.jobs.empty()
    bench.answer(job)
    assert (await asked).tokens == [3]


@pytest.mark.parametrize("losses", [1, 2])
async def test_a_job_swallowed_by_a_dead_worker_is_found_and_sent_again(
    bench: Bench, losses: int
) -> None:
    """Taken and not noted: a probe that comes through tells, or the next one does."""
    asked = bench.ask("swallowed")
    for worker in range(losses):
        await asyncio.to_thread(bench.jobs.get)
        bench.lose(worker)
    bench.work(losses)
    assert (await asked).tokens == [9]


async def test_an_item_that_kills_every_worker_is_refused_and_its_neighbours_are_answered(
    bench: Bench,
) -> None:
    """The first death breaks the job up, and the second, alone, names the culprit."""
    deaths: list[int] = []

    def workers() -> None:
        while True:
            number = len(deaths)
            job = bench.port(number).fetch()
            if bench.ledger.begin(job.id) and "poison" in job.items:
                deaths.append(number)
                bench.lose(number)
            else:
                bench.answer(job, worker=number)

    in_thread(workers)
    reply = await bench.ask("a", "poison", "ccc")
    assert reply.errors == {1: "item_quarantined"}
    assert len(deaths) == 2
    assert _rows(reply) == [1, 0, 3]


async def test_those_in_the_same_worker_as_an_item_that_kills_are_answered(bench: Bench) -> None:
    """Six jobs of one item die with it once; then suspects go one at a time, and only it dies."""
    deaths: list[int] = []

    def workers() -> None:
        count = 6  # the first worker holds them all, a later one what has come
        for number in itertools.count():
            held = [bench.port(number).fetch() for _ in range(count)]
            count = 1
            for job in held:
                bench.ledger.begin(job.id)
            if any("poison" in job.items for job in held):
                deaths.append(number)
                bench.lose(number)
            else:
                bench.answer(*held, worker=number)

    texts = ["a", "bb", "poison", "dddd", "eeeee", "ffffff"]
    together = asyncio.gather(*(bench.ask(text) for text in texts))
    in_thread(workers)
    replies = await together
    assert [reply.errors for reply in replies] == [{}, {}, {0: "item_quarantined"}, {}, {}, {}]
    assert len(deaths) == 2


async def test_a_job_that_no_worker_had_begun_with_is_not_blamed_for_its_death(
    bench: Bench,
) -> None:
    """Two jobs are fetched, one is begun, the worker dies: only that one has to go alone."""
    together = asyncio.gather(bench.ask("begun"), bench.ask("fetched"))
    await bench.begin(0)
    await bench.fetch(0)
    bench.lose(0)
    await until(lambda: sum(p.losses for p in bench.under_way) == 2)
    await until(lambda: any(p.alone for p in bench.under_way))
    assert [p.job.items for p in bench.under_way if p.alone] == [["begun"]]
    bench.work(1)
    assert [reply.tokens for reply in await together] == [[5], [7]]


async def test_a_death_beside_other_work_proves_nothing_yet(bench: Bench) -> None:
    """A suspect in the worker that a fresh item kills is tried once more, and answered."""
    suspect = bench.ask("innocent")
    await bench.begin(0)
    bench.lose(0)
    await bench.begin(1)
    other = bench.ask("poison")
    await bench.begin(1)
    bench.lose(1)
    bench.work(2)
    await other
    assert (await suspect).tokens == [8]


async def test_an_item_that_takes_too_long_is_refused_and_its_neighbours_are_answered(
    bench: Bench,
) -> None:
    """Those of its own job and of others, all begun in that worker: none is suspect for it."""
    jobs = [["a", "slow", "ccc"], ["dddd"], ["eeeee", "ffffff"]]
    together = asyncio.gather(*(bench.ask(*job, kind="image") for job in jobs))
    ids = {tuple(job.items): job.id for job in [await bench.begin(0) for _ in jobs]}
    bench.inbox.put((LOST, ("image", {ids["a", "slow", "ccc"]: 1}), 0))
    await until(lambda: bench.heard_of_a_loss())
    assert not any(p.held or p.alone or p.losses for p in bench.under_way)
    bench.work(1)
    first, *others = await together
    assert first.errors == {1: "image_too_slow"}
    assert _rows(first) == [1, 0, 3]
    assert [reply.tokens for reply in others] == [[4], [5, 6]]
    assert [reply.errors for reply in others] == [{}, {}]


async def test_a_single_image_that_takes_too_long_is_answered_as_that(bench: Bench) -> None:
    """No second worker is tried on it."""
    asked = bench.ask("slow", kind="image")
    bench.inbox.put((LOST, ("image", {(await bench.fetch(0)).id: 0}), 0))
    assert (await asked).errors == {0: "image_too_slow"}


async def test_a_picture_that_was_done_at_the_last_moment_makes_nobody_suspect(
    bench: Bench,
) -> None:
    """The worker was ended for it all the same; what it held goes to the next."""
    asked = bench.ask("abc", kind="image")
    await bench.begin(0)
    bench.inbox.put((LOST, ("image", {}), 0))
    await until(lambda: bench.heard_of_a_loss())
    assert [p.losses for p in bench.under_way] == [0]
    bench.work(1)
    assert (await asked).tokens == [3]


async def test_a_job_whose_caller_left_is_never_handed_to_a_worker(bench: Bench) -> None:
    """The queue still holds it, and the worker passes over it to the next one."""
    left, stays = bench.ask("nobody's"), bench.ask("mine")
    await until(lambda: bench.dispatcher.depth("text") == 2)
    left.cancel()
    await asyncio.wait([left])
    assert bench.in_flight() == 1
    assert (await bench.fetch(0)).items == ["mine"]
    assert bench.jobs.empty()
    bench.lose(0)
    bench.work(1)
    assert (await stays).tokens == [4]


async def test_a_job_whose_caller_left_after_it_was_fetched_is_not_begun(bench: Bench) -> None:
    """Decoding is the dear part; until it begins the job may still be dropped."""
    asked = bench.ask("a")
    job = await bench.fetch(0)
    assert not bench.dispatcher.begun(bench.under_way[0].job)
    asked.cancel()
    await asyncio.wait([asked])
    assert not bench.ledger.begin(job.id)


async def test_a_large_job_that_is_given_up_holds_no_memory(bench: Bench) -> None:
    """Its message lies in the queue still, but empty; the worker passes over it."""
    asked = bench.ask(bytes(8 << 20), kind="image")
    await until(lambda: not bench.jobs.empty())
    (parcel,) = bench.under_way[0].parcels
    await until(lambda: parcel._file is not None)
    file = os.dup(cast("int", parcel._file))
    assert os.fstat(file).st_size > 8 << 20
    asked.cancel()
    await asyncio.wait([asked])
    assert os.fstat(file).st_size == 0
    os.close(file)
    stays = bench.ask("mine", kind="image")
    bench.work(0, 1)
    assert (await stays).tokens == [4]


async def test_a_job_says_whether_it_was_begun(bench: Bench) -> None:
    """From the moment a worker begins until the job is answered, and again no more."""
    job = Job(["a"], deadline=time.monotonic() + 30)
    seen = [bench.dispatcher.begun(job)]
    asked = asyncio.ensure_future(bench.dispatcher.submit("text", job))
    begun = await bench.begin(0)
    seen.append(bench.dispatcher.begun(job))
    bench.answer(begun)
    await asked
    assert [*seen, bench.dispatcher.begun(job)] == [False, True, False]


async def test_a_tower_is_whole_again_when_its_last_worker_is(bench: Bench) -> None:
    """From the loss of a worker until as many as before are ready, nothing is learnt."""
    dispatcher = bench.dispatcher
    bench.inbox.put((LIVE, {"text": (2, True), "image": (0, True)}, None))
    await until(lambda: dispatcher.live == {"text": 2, "image": 0})
    assert dispatcher.whole_since("text") == 0.0
    bench.lose(0)
    await until(lambda: dispatcher.whole_since("text") == math.inf)
    bench.inbox.put((LIVE, {"text": (1, False), "image": (0, True)}, None))
    await until(lambda: dispatcher.live["text"] == 1)
    assert dispatcher.whole_since("text") == math.inf
    assert dispatcher.whole_since("image") == 0.0
    before = time.monotonic()
    bench.inbox.put((LIVE, {"text": (2, True), "image": (0, True)}, None))
    await until(lambda: dispatcher.whole_since("text") < math.inf)
    assert dispatcher.whole_since("text") >= before


async def test_a_suspect_that_runs_out_of_time_lets_the_next_one_go(bench: Bench) -> None:
    """The lane is not kept by somebody who has left."""
    late, stays = bench.ask("a", seconds=2.0), bench.ask("bb")
    for worker in range(2):  # two workers take both, and die
        for _ in range(2):
            await bench.fetch(worker)
        bench.lose(worker)
    with pytest.raises(DeadlineExceeded):
        await late
    bench.work(2)
    assert (await stays).tokens == [2]
