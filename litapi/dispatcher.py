"""The seam to LitServe: the only file that touches its private parts.

Three things stand here because stock LitServe cannot do them. `DispatchServer` lays one request
queue for each tower and one inbox for each HTTP process, plans which device each worker gets, waits
until *all* workers are ready, and replaces workers and HTTP processes that die. `WorkerPort` is a
worker's end: fetch a job, note that it was fetched, send the reply. `Dispatcher` is an HTTP
process's end: submit a job, await its reply until the deadline, and send the jobs of a lost worker
again.

Why nothing is lost: a worker notes in `Interest` that it has a job as soon as it does, so a job of
a dead worker is known. (LitServe's own loops say START instead, in a message.) A job that a worker
took and could not note before it died is nobody's; the queue is first in, first out, so a probe
that comes through shows which earlier jobs were swallowed. Embeddings are idempotent, so sending
one twice is harmless.

Who did it: a job that a worker had begun with when it died is suspect. Suspects go on item by item
and one at a time, so an item that kills is alone with its next death and is set aside for it. Where
other work was begun in that worker too, the death proves nothing yet, and one more does.

Who took too long: a worker that was replaced because of a picture that decodes for too long says
which it was. That item is refused, and the others of that worker are sent again without suspicion.

Who left: a job that nobody waits for any more is forgotten here at once, and its place in
`Interest` tells the workers to drop it. What a worker has begun with, `begun`, is not given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.managers import SyncManager
from typing import Any

import uvicorn
from litserve import LitAPI, LitServer
from litserve.transport.process_transport import MPQueueTransport
from litserve.utils import LitAPIStatus, WorkerSetupStatus

from litapi.errors import (
    DeadlineExceeded,
    ImageTooSlow,
    ItemError,
    ItemInternal,
    ItemQuarantined,
    WorkerLost,
)
from litapi.http.connection import GuardedServer
from litapi.messages import Job, Kind, Reply
from litapi.process import die_with_parent
from litapi.transport.channel import INLINE_BYTES, Channel, Parcel
from litapi.transport.ledger import Interest, Name
from litapi.vitals import THREADS, Decoding, Vitals, Watcher

log = logging.getLogger("siglit.dispatcher")

TICK = 0.25  # seconds between two looks at the child processes
FAILURES = 3  # loads in a row that failed, after which a tower without other workers is given up
YOUNG = 10.0  # seconds: an HTTP process that ends sooner may end again for the same reason
LONGEST_PAUSE = 30.0  # seconds until one that ended again and again is started again
RETRY_AFTER = 60.0  # seconds until such a worker is tried again where the tower has others
BURST = 64  # messages that are read before other work of the event loop gets its turn
MESSAGE_BYTES = INLINE_BYTES // 2  # of vectors, after which another message begins
GRACE = 0.5  # seconds past the deadline in which a worker's own answer may still arrive
SUSPECT = 2  # workers that died with a job in hand, though none had begun with it: once is chance
PROVEN = 3  # workers that died with a job, whatever else they had begun with
PROBE_PATIENCE = 600.0  # seconds: a probe may wait for a worker to be loaded again
REPLIES = "REPLIES"  # names and replies of several jobs
LOST = "LOST"  # control message: a worker died
SLOW = "SLOW"  # control message: a worker was replaced, with the names and items that it was for
LIVE = "LIVE"  # control message: how many workers of each tower are ready


@dataclass(slots=True, eq=False)
class Pending:
    """A job under way, as its HTTP process knows it."""

    kind: Kind
    job: Job
    future: asyncio.Future[Reply]
    worker: int | None = None  # which worker said START, where one says it
    losses: int = 0  # how many workers died with it
    held: bool = False  # it waits until no other suspect is under way
    alone: bool = False  # no other suspect is
    parcels: list[Parcel] = field(default_factory=list)  # its messages, where they are large

    def give_up(self, error: Exception) -> None:
        """Tell its caller why there is no reply, unless it was told something before."""
        if not self.future.done():
            self.future.set_exception(error)


class TookTooLong(Exception):
    """A worker was replaced because of one item of a job, its argument."""


class Dispatcher:
    """Submits jobs to the towers of this server and awaits their replies.

    Lives in one HTTP process, in one event loop.
    """

    def __init__(
        self, queues: Mapping[str, Channel], inbox: Channel, consumer: int, interest: Interest
    ) -> None:
        self._queues = queues
        self._inbox = inbox
        self._consumer = consumer
        self._claims = interest.claims(consumer)
        self._pending: dict[Name, Pending] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # the event loop holds tasks only weakly
        self._lanes = {kind: asyncio.Lock() for kind in queues}  # each for one suspect at a time
        self._whole = dict.fromkeys(queues, 0.0)  # tower → since when it lacks no worker
        self._most: dict[str, int] = {}
        self.live: dict[str, int] = {}  # tower → workers that are ready, once told
        self.losses = 0

    def start(self) -> None:
        """Begin to receive, in the running event loop."""
        asyncio.get_running_loop().add_reader(self._inbox.fileno(), self._receive)

    def in_flight(self, kind: Kind) -> int:
        """Items submitted by this process and not yet answered."""
        return sum(len(p.job.items) for p in self._pending.values() if p.kind == kind)

    def oldest(self, kind: Kind) -> float:
        """Seconds for which the oldest job of this process has been under way."""
        sent = [p.job.sent for p in self._pending.values() if p.kind == kind and p.job.items]
        return max(0.0, time.monotonic() - min(sent)) if sent else 0.0

    def whole_since(self, kind: Kind) -> float:
        """Since when the tower lacks no worker, on the monotonic clock; infinite while it does."""
        return self._whole[kind]

    def begun(self, job: Job) -> bool:
        """Whether a worker has begun with this job."""
        return job.name is not None and self._claims.begun(job.name)

    def depth(self, kind: Kind) -> int:
        """Jobs of this process that no worker has taken yet."""
        mine = [(uid, p) for uid, p in self._pending.items() if p.kind == kind]
        return sum(self._holder(uid, p) is None for uid, p in mine)

    def _holder(self, uid: Name, pending: Pending) -> int | None:
        return self._claims.holder(uid) if pending.worker is None else pending.worker

    async def submit(self, kind: Kind, job: Job) -> Reply:
        """The reply to `job`. Items over which workers keep dying are named in its errors.

        A caller that is cancelled gives the job up: no worker begins with it from then on.

        Raises:
            DeadlineExceeded: no reply by `job.deadline`.
            ItemInternal: the worker answered with an error of its own.
        """
        return await self._submit(kind, job)

    async def _submit(self, kind: Kind, job: Job, losses: int = 0) -> Reply:
        try:
            return await self._send(kind, job, losses)
        except WorkerLost:
            if len(job.items) == 1:
                log.error("an item over which %s workers die is set aside", kind)
                return _refusal(ItemQuarantined())
        except TookTooLong as error:
            return await self._without(kind, job, error.args[0])
        # One of these items kills workers. One by one, so that only that one is refused.
        return merged([await self._single(kind, one, losses=1) for one in _singles(job)])

    async def _without(self, kind: Kind, job: Job, slow: int) -> Reply:
        """The reply to a job with one item that takes too long: only that one is refused."""
        log.error("an item that takes too long to decode is refused")
        if len(job.items) == 1:
            return _refusal(ImageTooSlow())
        rest = [self._single(kind, one) for i, one in enumerate(_singles(job)) if i != slow]
        replies = await asyncio.gather(*rest)
        return merged([*replies[:slow], _refusal(ImageTooSlow()), *replies[slow:]])

    async def _single(self, kind: Kind, job: Job, losses: int = 0) -> Reply:
        """With a loss it is suspect, and one death is its own."""
        try:
            return await self._submit(kind, job, losses)
        except ItemError as error:
            return _refusal(error)

    async def _send(self, kind: Kind, job: Job, losses: int = 0) -> Reply:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        uid, pending = self._claims.take(), Pending(kind, job, future, losses=losses)
        self._pending[uid], job.name = pending, uid
        left = job.deadline - time.monotonic() + GRACE
        patience = loop.call_later(left, pending.give_up, DeadlineExceeded())
        try:
            if losses:
                self._hold(uid, pending)
            else:
                await self._put(uid, pending)
            return await future
        finally:
            patience.cancel()
            self._pending.pop(uid, None)
            self._claims.give_back(uid)
            job.name = None
            for parcel in pending.parcels:
                parcel.take_back()

    async def _put(self, uid: Name, pending: Pending) -> None:
        pending.job.sent = time.monotonic()
        message = (self._consumer, uid, pending.job.sent, pending.job)
        channel = self._queues[pending.kind]
        if sum(map(len, pending.job.items)) < INLINE_BYTES:
            channel.put(message)
        else:
            parcel = Parcel(message)
            pending.parcels.append(parcel)
            await asyncio.get_running_loop().run_in_executor(None, channel.post, parcel)

    # -- receiving -----------------------------------------------------------------------------

    def _receive(self) -> None:
        for uid, (data, status, _, worker) in self._inbox.take(BURST):
            self._deliver(uid, data, status, worker)

    def _deliver(self, uid: Name, data: Any, status: str, worker: int | None) -> None:
        if status == REPLIES:
            for name, reply in data:
                self._deliver(name, reply, LitAPIStatus.OK, worker)
        elif status == LOST:
            self._lost(data, worker)
        elif status == SLOW:
            self._lost(data[0], worker, dict(data[1]))
        elif status == LIVE:
            self._told_live(data)
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

    def _told_live(self, live: dict[str, int]) -> None:
        self.live.update(live)
        for kind, count in live.items():
            self._most[kind] = max(count, self._most.get(kind, 0))
            if count < self._most[kind]:
                self._whole[kind] = math.inf
            elif self._whole[kind] == math.inf:
                self._whole[kind] = time.monotonic()

    def _lost(self, kind: Kind, worker: int | None, slow: dict[Name, int] | None = None) -> None:
        self.losses += 1
        self._whole[kind] = math.inf
        mine = [(uid, p) for uid, p in self._pending.items() if p.kind == kind]
        holders = {uid: self._holder(uid, p) for uid, p in mine}
        fell = [(uid, p) for uid, p in mine if worker is not None and holders[uid] == worker]
        begun = {uid for uid, _ in fell if self._claims.begun(uid)}
        for uid, pending in fell:
            if slow is not None and uid in slow:
                pending.give_up(TookTooLong(slow[uid]))
            elif slow is not None:
                pending.worker = None
                self._claims.again(uid)
                self._spawn(self._put(uid, pending))
            else:
                self._again(uid, pending, uid in begun, proves=len(begun) == 1)
        waiting = [uid for uid, p in mine if self._holder(uid, p) is None and not p.held]
        self._spawn(self._find_swallowed(kind, waiting))

    async def _find_swallowed(self, kind: Kind, waiting: list[Name]) -> None:
        """Send again what the dead worker had taken from the queue without a word.

        Whatever waited before a probe that comes through was handed out by then. If the next worker
        dies with the probe, its loss sends another.
        """
        with contextlib.suppress(DeadlineExceeded, WorkerLost):
            await self._send(kind, Job([], deadline=time.monotonic() + PROBE_PATIENCE))
        for uid in waiting:
            pending = self._pending.get(uid)
            if pending is not None and not pending.held and self._holder(uid, pending) is None:
                self._spawn(self._put(uid, pending))

    def _again(self, uid: Name, pending: Pending, begun: bool, proves: bool) -> None:
        pending.worker = None
        pending.losses += 1
        self._claims.again(uid)
        suspect = begun or pending.losses >= SUSPECT
        proven = pending.losses >= PROVEN or (pending.alone and begun and proves)
        if proven or (suspect and len(pending.job.items) > 1):
            pending.give_up(WorkerLost())
        elif pending.alone or not suspect:
            self._spawn(self._put(uid, pending))
        else:
            self._hold(uid, pending)

    def _hold(self, uid: Name, pending: Pending) -> None:
        pending.held = True
        self._spawn(self._put_alone(uid, pending))

    async def _put_alone(self, uid: Name, pending: Pending) -> None:
        """Send a suspect once no other one is under way, and let the next go when it has ended."""
        async with self._lanes[pending.kind]:
            if pending.future.done():
                return
            pending.held, pending.alone = False, True
            await self._put(uid, pending)
            await asyncio.wait([pending.future])

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _singles(job: Job) -> list[Job]:
    """A job for each item."""
    places = range(len(job.items))
    return [Job(job.items[i : i + 1], job.max_num_patches, job.deadline) for i in places]


def _refusal(error: ItemError) -> Reply:
    return Reply(b"", [0], errors={0: error.code})


def merged(replies: Sequence[Reply]) -> Reply:
    """Replies to single items as the reply to all of them, in order."""
    size = max(len(reply.vectors) for reply in replies)
    return Reply(
        vectors=b"".join(reply.vectors or bytes(size) for reply in replies),
        tokens=[reply.tokens[0] for reply in replies],
        truncated=[i for i, reply in enumerate(replies) if reply.truncated],
        errors={i: reply.errors[0] for i, reply in enumerate(replies) if reply.errors},
        queue_seconds=sum(reply.queue_seconds for reply in replies),
        decode_seconds=sum(reply.decode_seconds for reply in replies),
        infer_seconds=sum(reply.infer_seconds for reply in replies),
    )


@dataclass(frozen=True, slots=True)
class Fetched:
    """A job in a worker, with the address its reply goes to."""

    consumer: int
    uid: Name
    job: Job


class WorkerPort:
    """A worker's end of the queues."""

    def __init__(
        self, worker: int, jobs: Channel, transport: MPQueueTransport, interest: Interest
    ) -> None:
        self._worker = worker
        self._jobs = jobs
        self._transport = transport
        self._interest = interest

    def fetch(self) -> Fetched:
        """The next job that somebody waits for; waits without using the CPU, and notes it."""
        while True:
            consumer, uid, _, job = self._jobs.get()
            if uid is None:  # LitServe's own stop signal: the process is about to be ended
                continue
            if self._interest.wanted(uid):
                if not self._interest.hold(uid, self._worker):
                    self._answer(consumer, uid, None, LitAPIStatus.START)
                return Fetched(consumer, uid, job)

    def begin(self, fetched: Fetched) -> bool:
        """Whether somebody still waits for the job; from then on it counts as begun."""
        return self._interest.begin(fetched.uid)

    def send(self, replies: Sequence[tuple[Fetched, Reply]]) -> None:
        """Send replies to where their jobs came from, those of one process together."""
        together: dict[int, list[tuple[Name, Reply]]] = {}
        for fetched, reply in replies:
            together.setdefault(fetched.consumer, []).append((fetched.uid, reply))
        for consumer, mine in together.items():
            for part in _parted(mine):
                self._answer(consumer, "", part, REPLIES)

    def _answer(self, consumer: int, uid: Any, data: Any, status: str) -> None:
        """As LitServe's loops do, but for the kind of response: an enum is slow to unpickle."""
        self._transport.send((uid, (data, status, None, self._worker)), consumer_id=consumer)


def _parted(replies: Sequence[tuple[Name, Reply]]) -> Iterator[list[tuple[Name, Reply]]]:
    part, size = [], 0
    for name, reply in replies:
        part.append((name, reply))
        size += len(reply.vectors)
        if size > MESSAGE_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


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
    slow: list[Decoding] = field(default_factory=list)  # for which its worker was ended
    watcher: Watcher = field(init=False)

    def __post_init__(self) -> None:
        self.watcher = Watcher(self.api.vitals, self.worker)

    @property
    def key(self) -> str:
        """The name under which LitServe keeps this worker's status."""
        return f"{self.kind}_{self.worker}"


@dataclass(slots=True)
class Revival:
    """When an HTTP process that died is started again: at once, ever later if it dies young."""

    born: float = 0.0
    deaths: int = 0  # in a row, of processes that were young
    not_before: float = 0.0
    of: int | None = None  # the process whose death is known

    def died(self, pid: int) -> float:
        """Seconds until another is started."""
        now = time.monotonic()
        self.deaths = self.deaths + 1 if now - self.born < YOUNG else 0
        pause = min(LONGEST_PAUSE, 2.0 ** (self.deaths - 1)) if self.deaths else 0.0
        self.of, self.not_before = pid, now + pause
        return pause


def ended(code: int | None) -> str:
    """How a process ended: the name of the signal, or its exit code."""
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


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
        self.restarts = 0
        self.hang_timeout = 60.0
        self.decode_timeout = 10.0
        self.decode_threads = THREADS  # of a worker, at most
        self.linger = 1.0  # seconds in which /readyz says 503 before anything closes
        self.draining = multiprocessing.RawValue("b", 0)
        self._busy: Any = []  # requests being answered, by HTTP process
        self._interest = Interest()
        self._seats: list[Seat] = []
        self._sockets: list[Any] = []
        self._fronts: dict[int, Any] = {}
        self._revivals: dict[int, Revival] = {}
        self._told: dict[str, Any] = {}
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
        self._busy = multiprocessing.RawArray("i", num_api_servers)
        self._interest = Interest(num_api_servers)
        for api in self.litapi_connector:
            self.litapi_request_queues[api.api_path] = Channel()
            api.board = self.board
            workers = len(self._inference_workers_config_for_api(api.api_path))
            api.vitals = Vitals(workers, self.decode_threads)
            api.interest = self._interest
        inboxes = [Channel() for _ in range(num_api_servers)]
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
        return Dispatcher(queues, self._transport._queues[consumer], consumer, self._interest)

    # -- starting ------------------------------------------------------------------------------

    def verify_worker_status(self) -> None:
        """Wait until every worker is ready.

        Raises:
            StartError: one failed, died or took longer than `start_timeout`; the rest are ended.
        """
        try:
            self._await_workers(time.monotonic() + self.start_timeout)
            self.ready()
        except BaseException:
            self._end(self.inference_workers, 5.0)
            raise

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

    def listening(self) -> None:
        """Called in the main process once the port is this server's, before it answers there."""

    def ready(self) -> None:
        """Called in the main process when all workers are ready, before HTTP processes start."""

    # -- HTTP processes ------------------------------------------------------------------------

    def _start_server(
        self, port: int, count: int, log_level: str, sockets: Any, kind: str, **options: Any
    ) -> dict[int, Any]:
        del kind
        self._sockets = sockets
        self._front_config = (port, log_level, options)
        for listener in sockets:
            try:
                listener.listen(options.get("backlog", 2048))
            except OSError:  # only one of those who bound it may listen
                raise StartError(f"port {port} was taken by another program meanwhile") from None
        self.listening()
        self._fronts = {consumer: self._fork_front(consumer) for consumer in range(count)}
        self._tell_live()
        return self._fronts

    def _fork_front(self, consumer: int) -> Any:
        context = multiprocessing.get_context("fork")
        process = context.Process(target=self._run_front, args=(consumer,), name=f"http-{consumer}")
        process.start()
        return process

    def _run_front(self, consumer: int) -> None:
        os.setsid()  # Ctrl-C goes to the main process alone, which then drains this one
        die_with_parent()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        port, log_level, options = self._front_config
        self.app.response_queue_id = consumer
        config = uvicorn.Config(
            app=self.app.wrapped(),
            port=port,
            log_level=log_level,
            timeout_graceful_shutdown=self.uvicorn_graceful_timeout,
            **options,
        )
        GuardedServer(config).run(self._sockets)

    # -- supervision ---------------------------------------------------------------------------

    def _start_worker_monitoring(self, manager: Any, fronts: dict[int, Any]) -> None:
        del manager, fronts
        threading.Thread(target=self._supervise, daemon=True, name="siglit-supervisor").start()

    def _supervise(self) -> None:
        while not self._stopping.wait(TICK):
            try:
                self._look_after_workers()
                self._look_after_fronts()
                self.tend()
            except (EOFError, OSError):  # the manager is gone: nothing can be supervised
                self._fail("the queues of the server were lost")
        threading.Event().wait()  # the children it started are tied to this thread's life

    def _look_after_workers(self) -> None:
        statuses = dict(self.workers_setup_status)
        for index, seat in enumerate(self._seats):
            if not self.inference_workers[index].is_alive():
                self._refill(index, seat, statuses.get(seat.key))
            elif complaint := self._complaint(seat, self.inference_workers[index].pid):
                log.error("%s worker %d %s; ending it", seat.kind, seat.worker, complaint)
                self.inference_workers[index].kill()  # also one that is stopped
        statuses = dict(self.workers_setup_status)  # a place that was just filled again is loading
        if statuses != self._told:
            self._told = statuses
            self._tell_live()

    def _complaint(self, seat: Seat, pid: int) -> str:
        """Why that worker must be ended; empty where it is well."""
        seat.slow = seat.slow or seat.watcher.slow(pid, self.decode_timeout)
        if seat.slow:
            return f"decodes one image for more than {self.decode_timeout:g} s of CPU time"
        return "hangs" if seat.watcher.hangs(pid, self.hang_timeout) else ""

    def _look_after_fronts(self) -> None:
        for consumer, process in self._fronts.items():
            if process.is_alive() or self._stopping.is_set():
                continue
            revival = self._revivals.setdefault(consumer, Revival())
            if process.pid != revival.of:
                pause = revival.died(process.pid)
                told = "another" if pause == 0 else f"another in {pause:g} s"
                how = ended(process.exitcode)
                log.error("HTTP process %d ended (%s); starting %s", consumer, how, told)
                self.child_ended(process.pid)
                self._busy[consumer] = 0  # what it was answering will never end
            if time.monotonic() >= revival.not_before:
                revival.born = time.monotonic()
                self._fronts[consumer] = self._fork_front(consumer)
            self._tell_live()

    def busy(self) -> Any:
        """A shared array: how many requests each HTTP process is answering."""
        return self._busy

    def children(self) -> dict[str, int]:
        """Role → process id of the HTTP processes and the workers."""
        fronts = {f"http-{consumer}": process.pid for consumer, process in self._fronts.items()}
        workers = {
            seat.key: process.pid
            for seat, process in zip(self._seats, self.inference_workers, strict=True)
        }
        return {**fronts, **workers}

    def tend(self) -> None:
        """Called every tick of the supervision, to look after other children."""

    def child_ended(self, pid: int) -> None:
        """Called when an HTTP process or a worker was found dead."""

    def _refill(self, index: int, seat: Seat, status: Any) -> None:
        now = time.monotonic()
        if now < seat.not_before or self._stopping.is_set():
            return
        if status == WorkerSetupStatus.READY:
            seat.failures = 0
            log.error("%s worker %d ended; starting another", seat.kind, seat.worker)
        else:
            seat.failures += 1
            if seat.failures >= FAILURES and not self._served_by_others(seat):
                self._fail(self._reason(seat))
                return
        told = self._farewell(seat)
        self.child_ended(self.inference_workers[index].pid)
        pause = min(10.0, 2.0**seat.failures) if now - seat.born < 10.0 else 0.0
        seat.not_before = now + (RETRY_AFTER if seat.failures >= FAILURES else pause)
        seat.born = now
        self.restarts += 1
        self.inference_workers[index] = self.launch_single_inference_worker(seat.api, seat.worker)
        self._tell(("", (*told, None, seat.worker)))

    @staticmethod
    def _farewell(seat: Seat) -> tuple[Any, str]:
        """What is told about the worker that has left its seat."""
        slow = [(one.name, one.item) for one in seat.watcher.still_at(seat.slow)]
        told = ((seat.kind, slow), SLOW) if seat.slow else (seat.kind, LOST)
        seat.slow = []
        seat.watcher.forget()
        return told

    def _served_by_others(self, lost: Seat) -> bool:
        """Whether another worker of this tower is well: one lost card is not the end of seven."""
        return any(
            seat.kind == lost.kind
            and seat is not lost
            and process.is_alive()
            and self.workers_setup_status.get(seat.key) == WorkerSetupStatus.READY
            for seat, process in zip(self._seats, self.inference_workers, strict=True)
        )

    def _fail(self, reason: str) -> None:
        self.failure = reason
        self._stopping.set()
        os.kill(os.getpid(), signal.SIGTERM)

    def _tell_live(self) -> None:
        """Tell every HTTP process how many workers of each tower are ready."""
        live = dict.fromkeys((seat.kind for seat in self._seats), 0)
        for seat in self._seats:
            live[seat.kind] += self.workers_setup_status.get(seat.key) == WorkerSetupStatus.READY
        self._tell(("", (live, LIVE, None, None)))

    def _tell(self, message: Any) -> None:
        for consumer in range(len(self._transport._queues)):
            self._transport.send(message, consumer_id=consumer)

    # -- ending --------------------------------------------------------------------------------

    def _perform_graceful_shutdown(
        self, manager: Any, uvicorn_workers: dict[int, Any], shutdown_reason: str = "normal"
    ) -> None:
        del shutdown_reason
        self._stopping.set()
        deadline = time.monotonic() + self.uvicorn_graceful_timeout
        self.draining.value = 1
        time.sleep(min(self.linger, self.uvicorn_graceful_timeout / 2))  # balancers look away
        while any(self._busy) and time.monotonic() < deadline - 1.0:
            time.sleep(0.05)
        for listener in self._sockets:  # or new clients would wait in its backlog for nothing
            listener.close()
        self._end(list(uvicorn_workers.values()), max(1.0, deadline - time.monotonic()))
        self._end(self.inference_workers, 5.0)
        with contextlib.suppress(EOFError, OSError):
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
