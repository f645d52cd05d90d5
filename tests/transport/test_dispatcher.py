"""The seam to LitServe: contracts with its private parts, and a dispatcher that loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import math
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import litserve
import numpy as np
import pytest
from litserve import LitServer
from litserve.loops.base import LitLoop
from litserve.loops.loops import inference_worker
from litserve.transport.process_transport import MPQueueTransport
from litserve.utils import LitAPIStatus, LoopResponseType, WorkerSetupStatus

from litapi.errors import DeadlineExceeded, ItemInternal
from litapi.messages import Job, Reply
from litapi.supervisor import (
    LONGEST_PAUSE,
    RETRY_AFTER,
    YOUNG,
    DispatchServer,
    Revival,
    Seat,
    ended,
)
from litapi.transport.channel import Channel
from litapi.transport.dispatcher import LIVE, LOST, SLOW, Dispatcher, merged
from litapi.transport.ledger import Ledger
from litapi.transport.port import Fetched, WorkerPort
from litapi.transport.vitals import Vitals

# -- contracts: what a new LitServe must not change unnoticed


def test_the_version_of_litserve_is_the_one_these_contracts_were_read_from() -> None:
    """Another version fails here first, with this file as the list of what to read again."""
    assert litserve.__version__ == "0.2.19"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("_inference_workers_config_for_api", ["self", "api_path"]),
        ("_init_manager", ["self", "num_api_servers"]),
        ("verify_worker_status", ["self"]),
        ("launch_inference_worker", ["self", "lit_api"]),
        ("launch_single_inference_worker", ["self", "lit_api", "worker_id"]),
        ("_start_worker_monitoring", ["self", "manager", "uvicorn_workers"]),
        (
            "_perform_graceful_shutdown",
            ["self", "manager", "uvicorn_workers", "shutdown_reason"],
        ),
        (
            "_start_server",
            [
                "self",
                "port",
                "num_uvicorn_servers",
                "log_level",
                "sockets",
                "uvicorn_worker_type",
                "kwargs",
            ],
        ),
    ],
)
def test_the_methods_that_are_overridden_have_their_signatures(
    name: str, parameters: list[str]
) -> None:
    """An override that is never called again would be a silent loss of everything it does."""
    assert list(inspect.signature(getattr(LitServer, name)).parameters) == parameters


@pytest.mark.parametrize(
    "call",
    [
        "self._init_manager(num_api_servers)",
        "self.launch_inference_worker(lit_api)",
        "self.verify_worker_status()",
        "self._start_server(",
        "self._start_worker_monitoring(manager, uvicorn_workers)",
        "self._shutdown_event.wait()",
        "self._perform_graceful_shutdown(manager, uvicorn_workers, shutdown_reason)",
        "config.bind_socket()",
    ],
)
def test_run_still_calls_what_is_overridden(call: str) -> None:
    """`run` goes through each of the overridden steps."""
    assert call in inspect.getsource(LitServer.run)


def test_workers_are_started_with_the_arguments_that_the_loop_expects() -> None:
    """The worker function's parameters, and where it says READY and ERROR."""
    assert list(inspect.signature(inference_worker).parameters) == [
        "lit_api",
        "device",
        "worker_id",
        "request_queue",
        "transport",
        "workers_setup_status",
        "callback_runner",
        "restart_workers",
    ]
    source = inspect.getsource(inference_worker)
    assert 'os.environ["LITSERVE_WORKER_ID"] = str(worker_id)' in source
    assert 'workers_setup_status[f"{endpoint}_{worker_id}"] = WorkerSetupStatus.READY' in source
    assert "loop._restart_workers = restart_workers" in source
    assert {WorkerSetupStatus.READY, WorkerSetupStatus.ERROR, WorkerSetupStatus.STARTING}


def test_a_loop_sends_answers_in_the_form_that_the_dispatcher_reads() -> None:
    """(job_id, (data, status, type, worker)) on the queue of the consumer that asked."""
    inbox: queue.Queue[Any] = queue.Queue()
    loop = LitLoop()
    loop._restart_workers = True
    loop._worker_id = 3
    transport = MPQueueTransport(None, [queue.Queue(), inbox])
    loop.put_response(transport, 1, "u", b"x", LitAPIStatus.OK, LoopResponseType.REGULAR)
    assert inbox.get_nowait() == ("u", (b"x", "OK", LoopResponseType.REGULAR, 3))
    loop.put_response(transport, 1, "u", None, LitAPIStatus.START, LoopResponseType.REGULAR)
    assert inbox.get_nowait()[1][1] == "START"
    assert transport._queues[1] is inbox


# -- the dispatcher, on real channels

DIM = 4


def _reply(job: Job) -> Reply:
    rows = [np.full(DIM, len(item), "<f4").tobytes() for item in job.items]
    return Reply(b"".join(rows), [len(item) for item in job.items])


def in_thread(work: Callable[[], None]) -> threading.Thread:
    """Run `work` until it is done or the queues go away."""

    def run() -> None:
        with contextlib.suppress(EOFError, OSError):
            work()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


class Bench:
    """The queues of one tower, and workers that a test plays by hand."""

    def __init__(self) -> None:
        self.jobs = Channel()
        self.inbox = Channel()
        self.transport = MPQueueTransport(None, [self.inbox])
        self.ledger = Ledger()

    def port(self, worker: int) -> WorkerPort:
        """The port of a worker with that number."""
        return WorkerPort(worker, self.jobs, self.transport, self.ledger)

    def tell(self, data: Any, status: str, worker: int | None) -> None:
        """A control message, as the main process sends it."""
        self.inbox.put(("", (data, status, None, worker)))

    def work(self, worker: int, jobs: int) -> threading.Thread:
        """A worker that answers that many jobs and ends."""

        def run() -> None:
            port = self.port(worker)
            for _ in range(jobs):
                fetched = port.fetch()
                port.send([(fetched, _reply(fetched.job))])

        return in_thread(run)

    def dispatcher(self) -> Dispatcher:
        """A dispatcher on these queues."""
        queues = {"text": self.jobs, "image": self.jobs}
        return Dispatcher(queues, self.inbox, 0, self.ledger)

    def close(self) -> None:
        """End the workers that still wait."""
        for end in (self.jobs._out, self.jobs._in):
            end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Queues of their own for each test."""
    laid = Bench()
    yield laid
    laid.close()


def _soon(items: list[str], seconds: float = 30.0) -> Job:
    return Job(items, deadline=time.monotonic() + seconds)


async def _until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came to that")


def test_a_job_goes_out_as_one_message_and_its_reply_comes_back(bench: Bench) -> None:
    """One message for 64 items; rows in order."""

    async def run() -> Reply:
        dispatcher = bench.dispatcher()
        dispatcher.start()
        texts = ["x" * (n + 1) for n in range(64)]
        submitted = asyncio.ensure_future(dispatcher.submit("text", _soon(texts)))
        await _until(lambda: not bench.jobs.empty())
        assert dispatcher.depth("text") == 1
        assert dispatcher.in_flight("text") == 64
        bench.work(0, 1)
        return await submitted

    reply = asyncio.run(run())
    rows = np.frombuffer(reply.vectors, "<f4").reshape(64, DIM)
    assert rows[:, 0].tolist() == list(range(1, 65))


def test_many_jobs_at_once_each_get_their_own_reply(bench: Bench) -> None:
    """300 concurrent jobs over three workers, none mixed up."""

    async def run() -> list[Reply]:
        dispatcher = bench.dispatcher()
        dispatcher.start()
        for worker in range(3):
            bench.work(worker, 100)
        jobs = [_soon(["y" * (n % 50 + 1)]) for n in range(300)]
        replies = await asyncio.gather(*(dispatcher.submit("text", job) for job in jobs))
        assert dispatcher.in_flight("text") == 0
        return list(replies)

    assert [reply.tokens[0] for reply in asyncio.run(run())] == [n % 50 + 1 for n in range(300)]


def test_replies_that_are_sent_together_reach_their_own_callers(bench: Bench) -> None:
    """One message for those of one HTTP process, and none of them mixed up."""

    async def run() -> tuple[list[Reply], int]:
        dispatcher = bench.dispatcher()
        jobs = [dispatcher.submit("text", _soon(["y" * (n + 1)])) for n in range(40)]
        together = asyncio.gather(*jobs)
        await asyncio.sleep(0)
        port = bench.port(0)
        fetched = [await asyncio.to_thread(port.fetch) for _ in range(40)]
        port.send([(one, _reply(one.job)) for one in fetched])
        messages = list(bench.inbox.take(99))
        dispatcher.start()
        for message in messages:
            bench.inbox.put(message)
        return list(await together), len(messages)

    replies, messages = asyncio.run(run())
    assert [reply.tokens for reply in replies] == [[n + 1] for n in range(40)]
    assert messages == 1


def test_replies_go_to_the_process_that_asked_in_messages_of_bounded_size() -> None:
    """Two processes and vectors of 10 KB: a few to a message, in order, each at its own inbox."""
    inboxes = [Channel(), Channel()]
    port = WorkerPort(0, Channel(), MPQueueTransport(None, inboxes), Ledger(2))
    reply = Reply(bytes(10_000), [1])
    port.send([(Fetched(n % 2, (0, n), Job([])), reply) for n in range(16)])
    for consumer, inbox in enumerate(inboxes):
        messages = [data for _, (data, *_) in inbox.take(99)]
        assert [name for data in messages for name, _ in data] == [
            (0, n) for n in range(consumer, 16, 2)
        ]
        assert [len(data) for data in messages] == [4, 4]
        inbox.close()


def test_a_job_that_nobody_answers_ends_with_its_deadline(bench: Bench) -> None:
    """A stuck worker costs the job, not the caller, and nothing stays behind."""

    async def run() -> int:
        dispatcher = bench.dispatcher()
        dispatcher.start()
        with pytest.raises(DeadlineExceeded):
            await dispatcher.submit("text", _soon(["a"], seconds=0.1))
        return dispatcher.in_flight("text")

    assert asyncio.run(run()) == 0


def test_a_cancelled_caller_leaves_nothing_behind(bench: Bench) -> None:
    """LitServe's own handler leaks here."""

    async def run() -> int:
        dispatcher = bench.dispatcher()
        dispatcher.start()
        task = asyncio.ensure_future(dispatcher.submit("text", _soon(["a"])))
        await _until(lambda: dispatcher.in_flight("text") == 1)
        task.cancel()
        await asyncio.wait([task])
        return dispatcher.in_flight("text")

    assert asyncio.run(run()) == 0


def test_an_error_of_litserves_own_becomes_an_internal_error(bench: Bench) -> None:
    """Under the stock loop an exception comes back pickled; its text stays inside."""

    async def run() -> None:
        dispatcher = bench.dispatcher()
        dispatcher.start()
        task = asyncio.ensure_future(dispatcher.submit("text", _soon(["a"])))
        _, job_id, _, _ = await asyncio.to_thread(bench.jobs.get)
        bench.inbox.put((job_id, (b"pickled", LitAPIStatus.ERROR, None, 0)))
        with pytest.raises(ItemInternal):
            await task

    asyncio.run(run())


def test_the_jobs_of_a_dead_worker_are_sent_again(bench: Bench) -> None:
    """A worker that took a job and died is replaced; its job is answered by the next."""

    async def run() -> Reply:
        dispatcher = bench.dispatcher()
        dispatcher.start()
        task = asyncio.ensure_future(dispatcher.submit("text", _soon(["abc", "de"])))
        await asyncio.to_thread(bench.port(0).fetch)  # and then it dies
        bench.tell("text", LOST, 0)
        bench.work(1, 9)
        return await task

    assert asyncio.run(run()).tokens == [3, 2]


def test_a_worker_wakes_the_http_process_once_for_each_job(bench: Bench) -> None:
    """That it has the job is noted in memory; the reply is the only message."""

    async def run() -> int:
        dispatcher = bench.dispatcher()
        task = asyncio.ensure_future(dispatcher.submit("text", _soon(["abc"])))
        await asyncio.sleep(0)
        port = bench.port(4)
        fetched = await asyncio.to_thread(port.fetch)
        assert bench.inbox.empty()
        assert dispatcher.depth("text") == 0
        port.send([(fetched, _reply(fetched.job))])
        dispatcher.start()
        await task
        return len(list(bench.inbox.take(9)))

    assert asyncio.run(run()) == 0


def test_a_job_that_found_no_place_is_sent_again_by_the_word_of_its_worker(bench: Bench) -> None:
    """So many are under way that it cannot be noted: then START tells, as with stock loops."""

    async def run() -> Reply:
        dispatcher = bench.dispatcher()
        dispatcher.start()
        dispatcher._slots._free.clear()
        task = asyncio.ensure_future(dispatcher.submit("text", _soon(["abc", "de"])))
        await asyncio.to_thread(bench.port(0).fetch)
        await _until(lambda: dispatcher.depth("text") == 0)
        bench.tell("text", LOST, 0)
        bench.work(1, 9)
        return await task

    assert asyncio.run(run()).tokens == [3, 2]


def test_jobs_of_living_workers_are_left_alone_when_another_dies(bench: Bench) -> None:
    """Only what the dead worker held is sent again."""

    async def run() -> tuple[int, Reply]:
        dispatcher = bench.dispatcher()
        dispatcher.start()
        task = asyncio.ensure_future(dispatcher.submit("text", _soon(["abc"])))
        port = bench.port(1)
        fetched = await asyncio.to_thread(port.fetch)
        bench.tell("text", LOST, 0)
        await _until(lambda: dispatcher.losses == 1 and not bench.jobs.empty())  # a probe
        assert dispatcher.depth("text") == 1
        port.send([(fetched, _reply(fetched.job))])
        return dispatcher.depth("text"), await task

    waiting, reply = asyncio.run(run())
    assert waiting == 1
    assert reply.tokens == [3]


def test_a_job_swallowed_by_a_dead_worker_is_found_and_sent_again(bench: Bench) -> None:
    """The queue handed it out, nobody noted it: a probe that comes through tells."""

    async def run() -> Reply:
        dispatcher = bench.dispatcher()
        dispatcher.start()
        task = asyncio.ensure_future(dispatcher.submit("text", _soon(["swallowed"])))
        await asyncio.to_thread(bench.jobs.get)  # taken by a worker that then died
        bench.tell("text", LOST, 0)
        bench.work(1, 9)
        return await task

    assert asyncio.run(run()).tokens == [9]


def test_a_probe_swallowed_by_the_next_worker_does_no_harm(bench: Bench) -> None:
    """Its own death sends another."""

    async def run() -> Reply:
        dispatcher = bench.dispatcher()
        dispatcher.start()
        task = asyncio.ensure_future(dispatcher.submit("text", _soon(["swallowed"])))
        await asyncio.to_thread(bench.jobs.get)
        bench.tell("text", LOST, 0)
        await asyncio.to_thread(bench.jobs.get)  # the probe
        bench.tell("text", LOST, 1)
        bench.work(2, 9)
        return await task

    assert asyncio.run(run()).tokens == [9]


def test_an_item_that_kills_every_worker_is_refused_and_its_neighbours_are_answered(
    bench: Bench,
) -> None:
    """The first death breaks the job up, and the second, alone, names the culprit."""
    deaths: list[int] = []

    def workers() -> None:
        number = 0
        port = bench.port(number)
        while True:
            fetched = port.fetch()
            if port.begin(fetched) and "poison" in fetched.job.items:
                deaths.append(number)
                bench.tell("text", LOST, number)
                number += 1
                port = bench.port(number)
            else:
                port.send([(fetched, _reply(fetched.job))])

    async def run() -> Reply:
        dispatcher = bench.dispatcher()
        dispatcher.start()
        in_thread(workers)
        return await dispatcher.submit("text", _soon(["a", "poison", "ccc"]))

    reply = asyncio.run(run())
    assert reply.errors == {1: "item_quarantined"}
    assert len(deaths) == 2
    rows = np.frombuffer(reply.vectors, "<f4").reshape(3, DIM)
    assert rows[:, 0].tolist() == [1, 0, 3]


def test_those_in_the_same_worker_as_an_item_that_kills_are_answered(bench: Bench) -> None:
    """Six jobs of one item die with it once; then suspects go one at a time, and only it dies."""
    deaths: list[int] = []

    def workers() -> None:
        for number in itertools.count():
            port = bench.port(number)
            held = [port.fetch()]  # a worker holds all that it can get
            time.sleep(0.05)
            while not bench.jobs.empty():
                held.append(port.fetch())
            for fetched in held:
                port.begin(fetched)
            if any("poison" in fetched.job.items for fetched in held):
                deaths.append(number)
                bench.tell("text", LOST, number)
                continue
            for fetched in held:
                port.send([(fetched, _reply(fetched.job))])

    async def run() -> list[Reply]:
        dispatcher = bench.dispatcher()
        dispatcher.start()
        texts = ["a", "bb", "poison", "dddd", "eeeee", "ffffff"]
        replies = [dispatcher.submit("text", _soon([text])) for text in texts]
        together = asyncio.gather(*replies)
        await _until(lambda: dispatcher.depth("text") == len(texts))
        in_thread(workers)
        return list(await together)

    replies = asyncio.run(run())
    assert [reply.errors for reply in replies] == [{}, {}, {0: "item_quarantined"}, {}, {}, {}]
    assert len(deaths) == 2


def test_a_job_that_no_worker_had_begun_with_is_not_blamed_for_its_death(bench: Bench) -> None:
    """Two jobs are fetched, one is begun, the worker dies: only that one has to go alone."""

    async def run() -> list[Reply]:
        dispatcher = bench.dispatcher()
        dispatcher.start()
        jobs = [dispatcher.submit("text", _soon([text])) for text in ("begun", "fetched")]
        together = asyncio.gather(*jobs)
        port = bench.port(0)
        first = await asyncio.to_thread(port.fetch)
        await asyncio.to_thread(port.fetch)
        assert port.begin(first)
        assert dispatcher.depth("text") == 0
        bench.tell("text", LOST, 0)
        await _until(lambda: sum(p.losses for p in dispatcher._pending.values()) == 2)
        await _until(lambda: any(p.alone for p in dispatcher._pending.values()))
        assert [p.job.items for p in dispatcher._pending.values() if p.alone] == [["begun"]]
        bench.work(1, 9)
        return list(await together)

    assert [reply.tokens for reply in asyncio.run(run())] == [[5], [7]]


def test_a_death_beside_other_work_proves_nothing_yet(bench: Bench) -> None:
    """A suspect in the worker that a fresh item kills is tried once more, and answered."""

    async def run() -> Reply:
        dispatcher = bench.dispatcher()
        dispatcher.start()
        suspect = asyncio.ensure_future(dispatcher.submit("text", _soon(["innocent"])))
        port = bench.port(0)
        assert port.begin(await asyncio.to_thread(port.fetch))
        bench.tell("text", LOST, 0)
        port = bench.port(1)
        while not (fetched := await asyncio.to_thread(port.fetch)).job.items:
            pass
        assert port.begin(fetched)
        other = asyncio.ensure_future(dispatcher.submit("text", _soon(["poison"])))
        while not (fetched := await asyncio.to_thread(port.fetch)).job.items:
            pass
        assert port.begin(fetched)
        bench.tell("text", LOST, 1)
        bench.work(2, 9)
        await other
        return await suspect

    assert asyncio.run(run()).tokens == [8]


# -- pictures that decode for too long -------------------------------------------------------------


def test_an_item_that_takes_too_long_is_refused_and_its_neighbours_are_answered(
    bench: Bench,
) -> None:
    """Those of its own job and of others, all begun in that worker: none is suspect for it."""

    async def run() -> list[Reply]:
        dispatcher = bench.dispatcher()
        dispatcher.start()
        jobs = [["a", "slow", "ccc"], ["dddd"], ["eeeee", "ffffff"]]
        together = asyncio.gather(*(dispatcher.submit("image", _soon(job)) for job in jobs))
        port = bench.port(0)
        held = [await asyncio.to_thread(port.fetch) for _ in jobs]
        for fetched in held:
            assert port.begin(fetched)
        names = {tuple(fetched.job.items): fetched.job_id for fetched in held}
        bench.tell(("image", [(names["a", "slow", "ccc"], 1)]), SLOW, 0)
        await _until(lambda: dispatcher.losses == 1)
        assert not any(p.held or p.alone or p.losses for p in dispatcher._pending.values())
        bench.work(1, 9)
        return list(await together)

    first, *others = asyncio.run(run())
    assert first.errors == {1: "image_too_slow"}
    assert np.frombuffer(first.vectors, "<f4").reshape(3, DIM)[:, 0].tolist() == [1, 0, 3]
    assert [reply.tokens for reply in others] == [[4], [5, 6]]
    assert [reply.errors for reply in others] == [{}, {}]


def test_a_single_image_that_takes_too_long_is_answered_as_that(bench: Bench) -> None:
    """No second worker is tried on it."""

    async def run() -> Reply:
        dispatcher = bench.dispatcher()
        dispatcher.start()
        task = asyncio.ensure_future(dispatcher.submit("image", _soon(["slow"])))
        fetched = await asyncio.to_thread(bench.port(0).fetch)
        bench.tell(("image", [(fetched.job_id, 0)]), SLOW, 0)
        return await task

    assert asyncio.run(run()).errors == {0: "image_too_slow"}


def test_a_picture_that_was_done_at_the_last_moment_makes_nobody_suspect(bench: Bench) -> None:
    """The worker was ended for it all the same; what it held goes to the next."""

    async def run() -> Reply:
        dispatcher = bench.dispatcher()
        dispatcher.start()
        task = asyncio.ensure_future(dispatcher.submit("image", _soon(["abc"])))
        port = bench.port(0)
        assert port.begin(await asyncio.to_thread(port.fetch))
        bench.tell(("image", []), SLOW, 0)
        await _until(lambda: dispatcher.losses == 1)
        assert [p.losses for p in dispatcher._pending.values() if p.job.items] == [0]
        bench.work(1, 9)
        return await task

    assert asyncio.run(run()).tokens == [3]


# -- clients that leave ---------------------------------------------------------------------------


def test_a_job_whose_caller_left_is_never_handed_to_a_worker(bench: Bench) -> None:
    """The queue still holds it, and the worker passes over it to the next one."""

    async def run() -> Reply:
        dispatcher = bench.dispatcher()
        dispatcher.start()
        left = asyncio.ensure_future(dispatcher.submit("text", _soon(["nobody's"])))
        stays = asyncio.ensure_future(dispatcher.submit("text", _soon(["mine"])))
        await _until(lambda: dispatcher.depth("text") == 2)
        left.cancel()
        await asyncio.wait([left])
        assert dispatcher.in_flight("text") == 1
        assert (await asyncio.to_thread(bench.port(0).fetch)).job.items == ["mine"]
        assert bench.jobs.empty()
        bench.tell("text", LOST, 0)
        bench.work(1, 9)
        return await stays

    assert asyncio.run(run()).tokens == [4]


def test_a_job_whose_caller_left_after_it_was_fetched_is_not_begun(bench: Bench) -> None:
    """Decoding is the dear part; until it begins the job may still be dropped."""

    async def run() -> None:
        dispatcher = bench.dispatcher()
        dispatcher.start()
        job, port = _soon(["a"]), bench.port(0)
        task = asyncio.ensure_future(dispatcher.submit("text", job))
        fetched = await asyncio.to_thread(port.fetch)
        assert not dispatcher.begun(job)
        task.cancel()
        await asyncio.wait([task])
        assert not port.begin(fetched)

    asyncio.run(run())


def test_a_large_job_that_is_given_up_holds_no_memory(bench: Bench) -> None:
    """Its message lies in the queue still, but empty; the worker passes over it."""

    async def run() -> int:
        dispatcher = bench.dispatcher()
        dispatcher.start()
        left = Job([bytes(8 << 20)], deadline=time.monotonic() + 30)
        task = asyncio.ensure_future(dispatcher.submit("image", left))
        await _until(lambda: not bench.jobs.empty())
        (pending,) = dispatcher._pending.values()
        (parcel,) = pending.parcels
        await _until(lambda: parcel._file is not None)
        file = os.dup(cast("int", parcel._file))
        assert os.fstat(file).st_size > 8 << 20
        task.cancel()
        await asyncio.wait([task])
        size = os.fstat(file).st_size
        os.close(file)
        stays = asyncio.ensure_future(dispatcher.submit("image", _soon(["mine"])))
        bench.work(0, 1)
        assert (await stays).tokens == [4]
        return size

    assert asyncio.run(run()) == 0


def test_a_job_says_whether_it_was_begun(bench: Bench) -> None:
    """From the moment a worker begins until the job is answered, and again no more."""

    async def run() -> list[bool]:
        dispatcher = bench.dispatcher()
        dispatcher.start()
        job, port = _soon(["a"]), bench.port(0)
        seen = [dispatcher.begun(job)]
        task = asyncio.ensure_future(dispatcher.submit("text", job))
        fetched = await asyncio.to_thread(port.fetch)
        port.begin(fetched)
        seen.append(dispatcher.begun(job))
        port.send([(fetched, _reply(fetched.job))])
        await task
        return [*seen, dispatcher.begun(job)]

    assert asyncio.run(run()) == [False, True, False]


def test_a_tower_is_whole_again_when_its_last_worker_is(bench: Bench) -> None:
    """From the loss of a worker until as many as before are ready, nothing is learnt."""

    async def run() -> None:
        dispatcher = bench.dispatcher()
        dispatcher.start()
        bench.tell({"text": 2, "image": 1}, LIVE, None)
        await _until(lambda: bool(dispatcher.live))
        assert dispatcher.whole_since("text") == 0.0
        bench.tell("text", LOST, 0)
        await _until(lambda: dispatcher.whole_since("text") == math.inf)
        bench.tell({"text": 1, "image": 1}, LIVE, None)
        await _until(lambda: dispatcher.live["text"] == 1)
        assert dispatcher.whole_since("text") == math.inf
        assert dispatcher.whole_since("image") == 0.0
        before = time.monotonic()
        bench.tell({"text": 2, "image": 1}, LIVE, None)
        await _until(lambda: dispatcher.whole_since("text") < math.inf)
        assert dispatcher.whole_since("text") >= before

    asyncio.run(run())


def test_a_suspect_that_runs_out_of_time_lets_the_next_one_go(bench: Bench) -> None:
    """The lane is not kept by somebody who has left."""

    async def run() -> Reply:
        dispatcher = bench.dispatcher()
        dispatcher.start()
        late = asyncio.ensure_future(dispatcher.submit("text", _soon(["a"], 1.0)))
        next_one = asyncio.ensure_future(dispatcher.submit("text", _soon(["bb"])))
        for number in range(2):  # two workers take both, and die
            port = bench.port(number)
            for _ in range(2):
                while not (await asyncio.to_thread(port.fetch)).job.items:
                    pass
            bench.tell("text", LOST, number)
        with pytest.raises(DeadlineExceeded):
            await late
        bench.work(2, 9)
        return await next_one

    assert asyncio.run(run()).tokens == [2]


def test_the_number_of_living_workers_is_known_once_told(bench: Bench) -> None:
    """`live` follows the main process's messages."""

    async def run() -> dict[str, int]:
        dispatcher = bench.dispatcher()
        dispatcher.start()
        bench.tell({"text": 2, "image": 0}, LIVE, None)
        await _until(lambda: bool(dispatcher.live))
        return dispatcher.live

    assert asyncio.run(run()) == {"text": 2, "image": 0}


def test_a_large_job_arrives_whole(bench: Bench) -> None:
    """Jobs over the inline size go onto the queue from a thread."""

    async def run() -> Reply:
        dispatcher = bench.dispatcher()
        dispatcher.start()
        bench.work(0, 1)
        job = Job([b"z" * 300_000, b"z" * 5], deadline=time.monotonic() + 30)
        return await dispatcher.submit("image", job)

    assert asyncio.run(run()).tokens == [300_000, 5]


def test_merged_replies_keep_order_errors_and_truncation() -> None:
    """Single replies become one, with zeros where an item failed."""
    good = Reply(np.ones(DIM, "<f4").tobytes(), [7], truncated=[0], infer_seconds=0.5)
    bad = Reply(b"", [0], errors={0: "worker_lost"})
    whole = merged([bad, good, bad])
    assert whole.errors == {0: "worker_lost", 2: "worker_lost"}
    assert whole.truncated == [1]
    assert np.frombuffer(whole.vectors, "<f4").reshape(3, DIM).sum(1).tolist() == [0, DIM, 0]
    assert whole.infer_seconds == 0.5


# -- places that stay empty ------------------------------------------------------------------------


class Places(DispatchServer):
    """Two text workers, of which the first does not load; nothing is started."""

    def __init__(self, other: WorkerSetupStatus, alive: bool = True) -> None:
        api = SimpleNamespace(vitals=Vitals(workers=2))
        self._seats = [Seat(cast("Any", api), "text", number) for number in range(2)]
        dead, second = (SimpleNamespace(is_alive=lambda a=a: a, pid=0) for a in (False, alive))
        self.inference_workers = [dead, second]
        self.workers_setup_status = cast(
            "Any", {"text_0": WorkerSetupStatus.ERROR, "text_1": other}
        )
        self.board = {"text_0_failure": "the card is gone"}
        self._stopping = threading.Event()
        self.restarts = 0
        self.failed: list[str] = []

    def _fail(self, reason: str) -> None:
        self.failed.append(reason)

    def _tell(self, message: Any) -> None:
        pass

    def launch_single_inference_worker(self, *_: Any) -> Any:
        return self.inference_workers[0]

    def fail_to_load(self, times: int) -> None:
        for _ in range(times):
            self._seats[0].not_before = 0.0
            self._refill(0, self._seats[0], WorkerSetupStatus.ERROR)


def test_one_worker_that_no_longer_loads_is_not_the_end_of_the_others() -> None:
    """A lost card beside a sound one: its place is tried again, now and then."""
    places = Places(WorkerSetupStatus.READY)
    places.fail_to_load(5)
    assert places.failed == []
    assert places.restarts == 5
    assert places._seats[0].not_before > time.monotonic() + RETRY_AFTER / 2


@pytest.mark.parametrize(
    ("other", "alive"), [(WorkerSetupStatus.ERROR, True), (WorkerSetupStatus.READY, False)]
)
def test_a_tower_that_no_worker_of_loads_ends_the_service_with_the_reason(
    other: WorkerSetupStatus, alive: bool
) -> None:
    """After the third time: a loop would hide it."""
    places = Places(other, alive)
    places.fail_to_load(2)
    assert places.failed == []
    places.fail_to_load(1)
    assert places.failed == ["the card is gone"]


def test_an_http_process_that_dies_young_is_started_ever_later() -> None:
    """At once the first time; one that dies four times a second would fill log and CPU."""
    revival = Revival()
    pauses = []
    for pid in range(9):
        pauses.append(revival.died(pid))
        revival.born = time.monotonic()
    assert pauses[0] == 0.0
    assert pauses[1:] == [min(LONGEST_PAUSE, 2.0**n) for n in range(8)]
    revival.born = time.monotonic() - 2 * YOUNG
    assert revival.died(99) == 0.0


@pytest.mark.parametrize(
    ("code", "said"), [(-7, "SIGBUS"), (-9, "SIGKILL"), (3, "exit code 3"), (-99, "signal 99")]
)
def test_the_end_of_a_process_is_named(code: int, said: str) -> None:
    """A log line says of what it died."""
    assert ended(code) == said
