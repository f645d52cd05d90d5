"""The main process: LitServe's server with a device plan, start-up, supervision and draining.

This is the only file that touches LitServe's private parts. Stock LitServe cannot do three things
that stand here: one queue for each tower and one inbox for each HTTP process; a start that waits
for *all* workers; and replacing workers and HTTP processes that die or hang.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.managers import SyncManager
from typing import Any

import uvicorn
from litserve import LitAPI, LitServer
from litserve.transport.process_transport import MPQueueTransport
from litserve.utils import WorkerSetupStatus

from litapi.http.connection import GuardedServer
from litapi.keys import Key
from litapi.messages import JobId
from litapi.process import die_with_parent
from litapi.settings import StartError
from litapi.transport.channel import Channel
from litapi.transport.dispatcher import KEYS, LIVE, LOST, Dispatcher
from litapi.transport.ledger import SLOTS, Ledger
from litapi.transport.vitals import THREADS, Decoding, Urgency, Vitals, Watcher

log = logging.getLogger("siglit.dispatcher")

TICK = 0.25  # seconds between two looks at the child processes
STARVED = 10  # times as long may a worker stand still that gets only what others leave
FAILURES = 3  # loads in a row that failed, after which a tower without other workers is given up
YOUNG = 10.0  # seconds: an HTTP process that ends sooner may end again for the same reason
LONGEST_PAUSE = 30.0  # seconds until one that ended again and again is started again
RETRY_AFTER = 60.0  # seconds until such a worker is tried again where the tower has others


@dataclass(slots=True)
class Seat:
    """One place for a worker: an index into LitServe's list, filled again when it falls empty."""

    api: LitAPI
    kind: str
    worker: int
    born: float = 0.0
    bulk: bool = False  # its worker serves bulk alone
    failures: int = 0  # loads in a row that failed
    not_before: float = 0.0
    slow: list[Decoding] = field(default_factory=list)  # for which its worker was ended
    watcher: Watcher = field(init=False)

    def __post_init__(self) -> None:
        self.watcher = Watcher(self.api.vitals, self.worker)

    @property
    def key(self) -> str:
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
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


class DispatchServer(LitServer):
    """LitServe's server with a device plan, honest start-up, and supervision that loses nothing."""

    def __init__(
        self,
        apis: list[LitAPI],
        plan: Mapping[str, list[str]],
        timeout: float,
        bulk_plan: Mapping[str, list[str]] | None = None,
    ) -> None:
        """`plan`: the device of each worker, by tower. `bulk_plan`: of those for bulk alone, which
        start with the first bulk job; without it all workers serve both."""
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
        self.bulk_plan = bulk_plan or {}
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
        self.busy: Any = []  # requests being answered, by HTTP process
        self.slots = SLOTS  # jobs of one HTTP process that may be under way
        self._ledger = Ledger()
        self._urgency = Urgency([])
        self._seats: list[Seat] = []
        self._unused: list[Seat] = []  # of workers that are not started yet
        self._sockets: list[Any] = []
        self._fronts: dict[int, Any] = {}
        self._revivals: dict[int, Revival] = {}
        self._told: dict[str, Any] = {}
        self._stopping = threading.Event()

    # -- laying the queues ---------------------------------------------------------------------

    def _inference_workers_config_for_api(self, api_path: str) -> list[str]:
        kind = api_path.strip("/")
        return [*self.plan[kind], *self.bulk_plan.get(kind, ())]

    def launch_inference_worker(self, lit_api: LitAPI) -> list[Any]:
        count = len(self.plan[lit_api.api_path.strip("/")])
        return [self.launch_single_inference_worker(lit_api, number) for number in range(count)]

    def _init_manager(self, num_api_servers: int) -> Any:
        manager = SyncManager()
        manager.start(die_with_parent)
        self.transport_config.manager = manager
        self.transport_config.num_consumers = num_api_servers
        self.workers_setup_status = manager.dict()
        self._shutdown_event = manager.Event()
        self.board = manager.dict()
        self.busy = multiprocessing.RawArray("i", num_api_servers)
        self._ledger = Ledger(num_api_servers, self.slots)
        for api in self.litapi_connector:
            self.litapi_request_queues[api.api_path], api.bulk_jobs = Channel(), Channel()
            api.board = self.board
            workers = self._inference_workers_config_for_api(api.api_path)
            first, count = len(self.plan[api.api_path.strip("/")]), len(workers)
            api.vitals = Vitals(count, self.decode_threads)
            api.ledger = self._ledger
            api.bulk_from = first if first < count else None
        inboxes = [Channel() for _ in range(num_api_servers)]
        self._transport = MPQueueTransport(manager, inboxes)
        seats = self._lay_seats()
        self._seats = [seat for seat in seats if not seat.bulk]
        self._unused = [seat for seat in seats if seat.bulk]
        self._urgency = Urgency([self.plan[seat.kind][seat.worker] for seat in self._seats])
        for index, seat in enumerate(self._seats):
            mine = seat.api.urgency = seat.api.urgency or []
            mine.append(self._urgency.of(index))
        return manager

    def _lay_seats(self) -> list[Seat]:
        now = time.monotonic()
        return [
            Seat(api, kind, worker, now, bulk=worker >= len(self.plan[kind]))
            for api in self.litapi_connector
            for kind in [api.api_path.strip("/")]
            for worker in range(len(self._inference_workers_config_for_api(kind)))
        ]

    def dispatcher(self, consumer: int) -> Dispatcher:
        queues = {
            api.api_path.strip("/"): (self.litapi_request_queues[api.api_path], api.bulk_jobs)
            for api in self.litapi_connector
        }
        return Dispatcher(queues, self._transport._queues[consumer], consumer, self._ledger)

    # -- starting ------------------------------------------------------------------------------

    def verify_worker_status(self) -> None:
        """Wait until every worker is ready. Raises StartError: one failed, died or took longer than
        `start_timeout`; the rest are ended."""
        try:
            self._await_workers(time.monotonic() + self.start_timeout)
            self.ready()
        except BaseException:
            self._end(self.inference_workers, 5.0)
            self._end_manager()
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
                self._start_bulk_workers()
                self._look_after_workers()
                self._look_after_fronts()
                self.tend()
            except (EOFError, OSError):  # the manager is gone: nothing can be supervised
                self._fail("the queues of the server were lost")
        threading.Event().wait()  # the children it started are tied to this thread's life

    def _start_bulk_workers(self) -> None:
        """Those of a tower, once a bulk job waits for them."""
        wanted = [seat for seat in self._unused if not seat.api.bulk_jobs.empty()]
        self._unused = [seat for seat in self._unused if seat not in wanted]
        for seat in wanted:
            log.info("starting %s worker %d, for bulk", seat.kind, seat.worker)
            seat.born = time.monotonic()
            process = self.launch_single_inference_worker(seat.api, seat.worker)
            self._seats.append(seat)
            self.inference_workers.append(process)

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
        seat.slow = seat.slow or seat.watcher.slow(pid, self.decode_timeout)
        if seat.slow:
            return f"decodes one image for more than {self.decode_timeout:g} s of CPU time"
        patience = self.hang_timeout * (STARVED if seat.bulk else 1)
        return "hangs" if seat.watcher.hangs(pid, patience) else ""

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
                self.busy[consumer] = 0  # what it was answering will never end
            if time.monotonic() >= revival.not_before:
                revival.born = time.monotonic()
                self._fronts[consumer] = self._fork_front(consumer)
            self._tell_live()

    def children(self) -> dict[str, int]:
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
        slow = self._farewell(seat)
        if not seat.bulk:
            self._urgency.clear(index)
        self.child_ended(self.inference_workers[index].pid)
        pause = min(10.0, 2.0**seat.failures) if now - seat.born < 10.0 else 0.0
        seat.not_before = now + (RETRY_AFTER if seat.failures >= FAILURES else pause)
        seat.born = now
        self.restarts += 1
        self.inference_workers[index] = self.launch_single_inference_worker(seat.api, seat.worker)
        self._tell((LOST, (seat.kind, slow), seat.worker))

    @staticmethod
    def _farewell(seat: Seat) -> dict[JobId, int] | None:
        """The items that the worker was ended for, by their jobs, if it did not end by itself."""
        slow = {one.job_id: one.item for one in seat.watcher.still_at(seat.slow)}
        ended_for_it, seat.slow = bool(seat.slow), []
        seat.watcher.forget()
        return slow if ended_for_it else None

    def _served_by_others(self, lost: Seat) -> bool:
        """Whether another worker of this tower is well: one lost card is not the end of seven, and
        without its bulk a tower serves the others."""
        return any(
            seat.kind == lost.kind
            and seat is not lost
            and seat.bulk <= lost.bulk
            and process.is_alive()
            and self.workers_setup_status.get(seat.key) == WorkerSetupStatus.READY
            for seat, process in zip(self._seats, self.inference_workers, strict=True)
        )

    def _fail(self, reason: str) -> None:
        self.failure = reason
        self._stopping.set()
        os.kill(os.getpid(), signal.SIGTERM)

    def _tell_live(self) -> None:
        found: dict[str, tuple[int, bool]] = {}
        for seat in self._seats:
            ready = self.workers_setup_status.get(seat.key) == WorkerSetupStatus.READY
            live, whole = found.get(seat.kind, (0, True))
            failed = seat.bulk and seat.failures > 0  # or the pace would never be learnt again
            found[seat.kind] = live + (ready and not seat.bulk), whole and (ready or failed)
        self._tell((LIVE, found, None))

    def tell_keys(self, keys: Sequence[Key]) -> None:
        self._tell((KEYS, keys, None))

    def _tell(self, message: Any) -> None:
        for consumer in range(len(self._transport._queues)):
            self._transport.send(message, consumer_id=consumer)

    # -- ending --------------------------------------------------------------------------------

    def _perform_graceful_shutdown(
        self, manager: Any, uvicorn_workers: dict[int, Any], shutdown_reason: str = "normal"
    ) -> None:
        del manager, shutdown_reason
        self._stopping.set()
        deadline = time.monotonic() + self.uvicorn_graceful_timeout
        self.draining.value = 1
        time.sleep(min(self.linger, self.uvicorn_graceful_timeout / 2))  # balancers look away
        while any(self.busy) and time.monotonic() < deadline - 1.0:
            time.sleep(0.05)
        for listener in self._sockets:  # or new clients would wait in its backlog for nothing
            listener.close()
        self._end(list(uvicorn_workers.values()), max(1.0, deadline - time.monotonic()))
        self._end(self.inference_workers, 5.0)
        self._end_manager()

    def _end_manager(self) -> None:
        """Before its socket's folder is removed, or it ends with a traceback."""
        with contextlib.suppress(EOFError, OSError):
            self.transport_config.manager.shutdown()

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
