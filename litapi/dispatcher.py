"""The seam to LitServe: the only file that touches its private parts.

Three things stand here because stock LitServe cannot do them. `DispatchServer` lays one request
queue for each tower and one inbox for each HTTP process, plans which device each worker gets, waits
until *all* workers are ready, and replaces workers and HTTP processes that die. `WorkerPort` is a
worker's end: fetch a job, say that it was fetched, send the reply. `Dispatcher` is an HTTP
process's end: submit a job, await its reply until the deadline, and send the jobs of a lost worker
again, once.

Why nothing is lost: a worker says START as soon as it holds a job, so a job of a dead worker is
known. A job that the queue handed to a worker that was already dead never gets its START; the
queue is first in, first out, so a probe sent after the death shows, by its own START, which
earlier jobs will never get theirs. Embeddings are idempotent, so sending one twice is harmless.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.managers import SyncManager
from typing import Any, Protocol

import uvicorn
from litserve import LitAPI, LitServer
from litserve.loops.base import LitLoop
from litserve.transport.process_transport import MPQueueTransport
from litserve.utils import LitAPIStatus, LoopResponseType, WorkerSetupStatus

from litapi.errors import DeadlineExceeded, ItemInternal, WorkerLost
from litapi.lifeline import die_with_parent
from litapi.messages import Job, Kind, Reply

log = logging.getLogger("siglit.dispatcher")

TICK = 0.25  # seconds between two looks at the child processes
INLINE_BYTES = 64 << 10  # a larger job is put on the queue from a thread, off the event loop
GRACE = 0.5  # seconds past the deadline in which a worker's own answer may still arrive
LOST = "LOST"  # control message: a worker died


class Inbox(Protocol):
    """A queue proxy of the manager process."""

    def put(self, item: Any) -> None: ...
    def get(self, block: bool = True, timeout: float | None = None) -> Any: ...
    def qsize(self) -> int: ...


@dataclass(slots=True, eq=False)
class Pending:
    """A job under way, as its HTTP process knows it."""

    kind: Kind
    job: Job
    future: asyncio.Future[Reply]
    number: int  # order of submission in this process
    worker: int | None = None  # which worker said START
    attempts: int = 1


class Dispatcher:
    """Submits jobs to the towers of this server and awaits their replies.

    Lives in one HTTP process, in one event loop; a thread waits for the inbox.
    """

    def __init__(self, queues: Mapping[str, Inbox], inbox: Inbox, consumer: int) -> None:
        self._queues = queues
        self._inbox = inbox
        self._consumer = consumer
        self._numbers = itertools.count()
        self._pending: dict[str, Pending] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self.restarts = 0
        self.retries = 0

    def start(self) -> None:
        """Begin to receive, in the running event loop."""
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._receive, daemon=True, name="siglit-inbox").start()

    @property
    def in_flight(self) -> int:
        """Jobs submitted by this process and not yet answered."""
        return len(self._pending)

    def depth(self, kind: Kind) -> int:
        """Jobs in the queue of a tower, of all HTTP processes (one round trip to the manager)."""
        return self._queues[kind].qsize()

    async def submit(self, kind: Kind, job: Job) -> Reply:
        """The reply to `job`.

        Raises:
            DeadlineExceeded: no reply by `job.deadline`.
            WorkerLost: two workers died over it.
            ItemInternal: the worker answered with an error of its own.
        """
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        uid = f"{self._consumer}.{next(self._numbers)}"
        pending = Pending(kind, job, future, int(uid.partition(".")[2]))
        self._pending[uid] = pending
        try:
            async with asyncio.timeout_at(job.deadline + GRACE):
                await self._put(uid, pending)
                return await future
        except TimeoutError:
            raise DeadlineExceeded from None
        finally:
            self._pending.pop(uid, None)

    async def _put(self, uid: str, pending: Pending) -> None:
        pending.job.sent = time.monotonic()
        message = (self._consumer, uid, pending.job.sent, pending.job)
        put = self._queues[pending.kind].put
        if sum(map(len, pending.job.items)) < INLINE_BYTES:
            put(message)
        else:
            await asyncio.get_running_loop().run_in_executor(None, put, message)

    def _receive(self) -> None:
        while True:
            try:
                message = self._inbox.get()
            except (EOFError, OSError):  # the manager is gone: so is the server
                return
            if message is None or self._loop is None or self._loop.is_closed():
                return
            uid, (data, status, *_, worker) = message
            self._loop.call_soon_threadsafe(self._deliver, uid, data, status, worker)

    def _deliver(self, uid: str, data: Any, status: str, worker: int | None) -> None:
        if status == LOST:
            self._lost(data, worker)
            return
        pending = self._pending.get(uid)
        if pending is None or pending.future.done():
            return
        if status == LitAPIStatus.START:
            pending.worker = worker
        elif status == LitAPIStatus.OK and isinstance(data, Reply):
            pending.future.set_result(data)
        else:
            log.error("a worker answered a job with an error of its own")
            pending.future.set_exception(ItemInternal())

    def _lost(self, kind: Kind, worker: int | None) -> None:
        self.restarts += 1
        mine = [(u, p) for u, p in self._pending.items() if p.kind == kind]
        for uid, pending in mine:
            if pending.worker == worker and pending.worker is not None:
                self._retry(uid, pending)
        waiting = [uid for uid, pending in mine if pending.worker is None]
        if waiting:
            self._spawn(self._probe(kind, waiting))

    async def _probe(self, kind: Kind, waiting: list[str]) -> None:
        """Resend what is still waiting when a later, empty job has come through the queue."""
        with_deadline = time.monotonic() + 3600
        await self.submit(kind, Job([], deadline=with_deadline))
        for uid in waiting:
            pending = self._pending.get(uid)
            if pending is not None and pending.worker is None:
                self._retry(uid, pending)

    def _retry(self, uid: str, pending: Pending) -> None:
        if pending.attempts >= 2:
            if not pending.future.done():
                pending.future.set_exception(WorkerLost())
            return
        pending.attempts, pending.worker = 2, None
        self.retries += 1
        self._spawn(self._put(uid, pending))

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        _TASKS.add(task)
        task.add_done_callback(_TASKS.discard)


_TASKS: set[asyncio.Future[Any]] = set()  # the event loop itself keeps only weak references


@dataclass(frozen=True, slots=True)
class Fetched:
    """A job in a worker, with the address its reply goes to."""

    consumer: int
    uid: str
    job: Job


class WorkerPort:
    """A worker's end of the queues."""

    def __init__(self, loop: LitLoop, queue: Inbox, transport: MPQueueTransport) -> None:
        self._loop = loop
        self._queue = queue
        self._transport = transport

    def fetch(self) -> Fetched:
        """The next job; waits without using the CPU, and says START for it."""
        while True:
            consumer, uid, _, job = self._queue.get()
            if uid is None:  # LitServe's own stop signal: the process is about to be ended
                continue
            self._answer(consumer, uid, None, LitAPIStatus.START)
            return Fetched(consumer, uid, job)

    def send(self, fetched: Fetched, reply: Reply) -> None:
        """Send the reply to where the job came from."""
        self._answer(fetched.consumer, fetched.uid, reply, LitAPIStatus.OK)

    def _answer(self, consumer: int, uid: str, data: Reply | None, status: str) -> None:
        self._loop.put_response(
            self._transport, consumer, uid, data, status, LoopResponseType.REGULAR
        )


class StartError(Exception):
    """The server could not start; its text is the one line that says why."""


@dataclass(slots=True)
class Seat:
    """One place for a worker: an index into LitServe's list, filled again when it falls empty."""

    api: LitAPI
    kind: str
    worker: int
    born: float = 0.0
    failures: int = 0  # loads in a row that failed
    not_before: float = 0.0

    @property
    def key(self) -> str:
        """The name under which LitServe keeps this worker's status."""
        return f"{self.kind}_{self.worker}"


class DispatchServer(LitServer):
    """LitServe's server with a device plan, honest start-up, and supervision that loses nothing."""

    def __init__(self, apis: list[LitAPI], plan: Mapping[str, list[str]], timeout: float) -> None:
        # "cpu" here only keeps LitServe from importing torch to look for devices: `plan` decides.
        super().__init__(
            apis,
            accelerator="cpu",
            timeout=timeout,
            restart_workers=True,
            healthcheck_path="/litserve/health",
            info_path="/litserve/info",
            disable_openapi_url=True,
        )
        self.plan = plan
        self.start_timeout = 600.0
        self.board: Any = None
        self.inference_workers: list[Any] = []
        self.failure: str | None = None
        self._seats: list[Seat] = []
        self._stopping = threading.Event()

    # -- laying the queues ---------------------------------------------------------------------

    def _inference_workers_config_for_api(self, api_path: str) -> list[str]:
        return self.plan[api_path.strip("/")]

    def _init_manager(self, num_api_servers: int) -> Any:
        manager = SyncManager()
        manager.start(die_with_parent)
        self.transport_config.manager = manager
        self.transport_config.num_consumers = num_api_servers
        self.workers_setup_status = manager.dict()
        self._shutdown_event = manager.Event()
        self.board = manager.dict()
        for api in self.litapi_connector:
            self.litapi_request_queues[api.api_path] = manager.Queue()
            api.board = self.board
        inboxes = [manager.Queue() for _ in range(num_api_servers)]
        self._transport = MPQueueTransport(manager, inboxes)
        self._seats = self._lay_seats()
        return manager

    def _lay_seats(self) -> list[Seat]:
        now = time.monotonic()
        return [
            Seat(api, api.api_path.strip("/"), worker, now)
            for api in self.litapi_connector
            for worker in range(len(self._inference_workers_config_for_api(api.api_path)))
        ]

    def dispatcher(self, consumer: int) -> Dispatcher:
        """The dispatcher of the HTTP process with that number; call it in that process."""
        queues = {path.strip("/"): q for path, q in self.litapi_request_queues.items()}
        return Dispatcher(queues, self._transport._queues[consumer], consumer)

    # -- starting ------------------------------------------------------------------------------

    def verify_worker_status(self) -> None:
        """Wait until every worker is ready.

        Raises:
            StartError: one failed, died or took longer than `start_timeout`; the rest are ended.
        """
        try:
            self._await_workers(time.monotonic() + self.start_timeout)
        except BaseException:
            self._end(self.inference_workers, 5.0)
            raise
        self.ready()

    def _await_workers(self, deadline: float) -> None:
        waiting = set(range(len(self._seats)))
        while waiting:
            for index in sorted(waiting):
                seat = self._seats[index]
                status = self.workers_setup_status.get(seat.key)
                if status == WorkerSetupStatus.READY:
                    waiting.discard(index)
                    self.loaded(len(self._seats) - len(waiting))
                elif (
                    status == WorkerSetupStatus.ERROR
                    or not self.inference_workers[index].is_alive()
                ):
                    raise StartError(self._reason(seat))
            if time.monotonic() > deadline:
                raise StartError(f"the workers did not load within {self.start_timeout:g} s")
            time.sleep(0.05)

    def _reason(self, seat: Seat) -> str:
        default = f"the {seat.kind} worker {seat.worker} ended while it was loading"
        return str(self.board.get(f"{seat.key}_failure", default))

    def loaded(self, done: int) -> None:
        """Called whenever one more worker is ready."""

    def ready(self) -> None:
        """Called in the main process when all workers are ready, before HTTP processes start."""

    # -- HTTP processes ------------------------------------------------------------------------

    def _start_server(
        self, port: int, count: int, log_level: str, sockets: Any, kind: str, **options: Any
    ) -> dict[int, Any]:
        del kind
        self._front_config = (port, log_level, sockets, options)
        return {consumer: self._fork_front(consumer) for consumer in range(count)}

    def _fork_front(self, consumer: int) -> Any:
        context = multiprocessing.get_context("fork")
        process = context.Process(target=self._run_front, args=(consumer,), name=f"http-{consumer}")
        process.start()
        return process

    def _run_front(self, consumer: int) -> None:
        die_with_parent()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        port, log_level, sockets, options = self._front_config
        self.app.response_queue_id = consumer
        config = uvicorn.Config(
            app=self.app,
            port=port,
            log_level=log_level,
            timeout_graceful_shutdown=self.uvicorn_graceful_timeout,
            **options,
        )
        uvicorn.Server(config).run(sockets)

    # -- supervision ---------------------------------------------------------------------------

    def _start_worker_monitoring(self, manager: Any, fronts: dict[int, Any]) -> None:
        del manager
        self._fronts = fronts
        threading.Thread(target=self._supervise, daemon=True, name="siglit-supervisor").start()

    def _supervise(self) -> None:
        while not self._stopping.wait(TICK):
            try:
                for index, seat in enumerate(self._seats):
                    if not self.inference_workers[index].is_alive():
                        self._refill(index, seat)
                for consumer, process in self._fronts.items():
                    if not process.is_alive() and not self._stopping.is_set():
                        log.error("HTTP process %d ended; starting another", consumer)
                        self._fronts[consumer] = self._fork_front(consumer)
                self.tend()
            except (EOFError, OSError):  # the manager is gone: nothing can be supervised
                self._fail("the queues of the server were lost")

    def tend(self) -> None:
        """Called every tick of the supervision, to look after other children."""

    def _refill(self, index: int, seat: Seat) -> None:
        now = time.monotonic()
        if now < seat.not_before or self._stopping.is_set():
            return
        if self.workers_setup_status.get(seat.key) == WorkerSetupStatus.READY:
            seat.failures = 0
            log.error("%s worker %d ended; starting another", seat.kind, seat.worker)
            self.tell_lost(seat.kind, seat.worker)
        else:
            seat.failures += 1
            if seat.failures >= 3:
                self._fail(self._reason(seat))
                return
        seat.not_before = now + min(10.0, 2.0**seat.failures) * (now - seat.born < 10.0)
        seat.born = now
        self.inference_workers[index] = self.launch_single_inference_worker(seat.api, seat.worker)

    def _fail(self, reason: str) -> None:
        self.failure = reason
        self._stopping.set()
        os.kill(os.getpid(), signal.SIGTERM)

    def tell_lost(self, kind: str, worker: int) -> None:
        """Tell every HTTP process that a worker died with whatever it held."""
        for consumer in range(len(self._transport._queues)):
            self._transport.send(("", (kind, LOST, None, worker)), consumer_id=consumer)

    # -- ending --------------------------------------------------------------------------------

    def _perform_graceful_shutdown(
        self, manager: Any, uvicorn_workers: dict[int, Any], shutdown_reason: str = "normal"
    ) -> None:
        del shutdown_reason
        self._stopping.set()
        self._end(list(uvicorn_workers.values()), self.uvicorn_graceful_timeout)
        self._end(self.inference_workers, 5.0)
        manager.shutdown()

    @staticmethod
    def _end(processes: list[Any], grace: float) -> None:
        """SIGTERM to all at once, SIGKILL to those that are left after `grace` seconds."""
        deadline = time.monotonic() + grace
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
