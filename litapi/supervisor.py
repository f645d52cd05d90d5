"""The main process: LitServe's server with a device plan, start-up, supervision and draining.

This is the only file that touches LitServe's private parts. Stock LitServe cannot do three things
that stand here: one queue for each tower and one inbox for each HTTP process; a start that waits
for *all* workers; and replacing workers and HTTP processes that die or hang.
"""

from __future__ import annotations

import contextlib
import functools
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
from litserve.utils import WorkerSetupStatus
from tqdm import tqdm

from litapi.http.connection import GuardedServer
from litapi.keys import Key
from litapi.metrics import forget
from litapi.process import die_with_parent
from litapi.settings import Settings, StartError
from litapi.transport.channel import Channel
from litapi.transport.dispatcher import KEYS, LIVE, LOST, Dispatcher
from litapi.transport.ledger import SLOTS, Ledger
from litapi.transport.vitals import THREADS, Urgent, Vitals, Watcher, urgency

log = logging.getLogger("siglit.dispatcher")

TICK = 0.25  # seconds between two looks at the child processes
STARVED = 10  # times as long may a worker stand still that gets only what others leave
FAILURES = 3  # loads in a row that failed, after which a tower without other workers is given up
YOUNG = 10.0  # seconds: an HTTP process that ends sooner may end again for the same reason
LONGEST_PAUSE = 30.0  # seconds until one that ended again and again is started again
LINGER = 1.0  # seconds in which /readyz says 503 before anything closes
RETRY_AFTER = 60.0  # seconds until such a worker is tried again where the tower has others


@dataclass(slots=True, eq=False)
class Seat:
    """One place for a worker, filled again when it falls empty."""

    api: LitAPI
    kind: str
    worker: int
    bulk: bool = False  # its worker serves bulk alone
    process: Any = None
    urgent: Urgent | None = None  # what its worker says of its interactive work
    born: float = 0.0
    failures: int = 0  # loads in a row that failed
    not_before: float = 0.0
    watcher: Watcher = field(init=False)

    def __post_init__(self) -> None:
        self.watcher = Watcher(self.api.vitals, self.worker)

    @property
    def key(self) -> str:
        return f"{self.kind}_{self.worker}"


@dataclass(slots=True)
class Front:
    """An HTTP process. One that died is started again: at once, ever later if it dies young."""

    consumer: int
    process: Any = None
    born: float = 0.0
    deaths: int = 0  # in a row, of processes that were young
    not_before: float = 0.0
    reported: bool = False  # the death of the process is known

    def died(self) -> float:
        """Seconds until another is started."""
        now = time.monotonic()
        self.deaths = self.deaths + 1 if now - self.born < YOUNG else 0
        pause = min(LONGEST_PAUSE, 2.0 ** (self.deaths - 1)) if self.deaths else 0.0
        self.reported, self.not_before = True, now + pause
        return pause


def ended(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _bar(workers: int) -> Any:
    """Only where somebody watches: at a terminal."""
    return tqdm(total=workers, desc="loading towers", unit="worker", leave=False, disable=None)


class DispatchServer(LitServer):
    def __init__(
        self,
        apis: list[LitAPI],
        settings: Settings,
        plan: Mapping[str, list[str]],
        bulk_plan: Mapping[str, list[str]],
    ) -> None:
        """`plan`: the device of each worker, by tower. `bulk_plan`: of those for bulk alone, which
        start with the first bulk job; without it all workers serve both."""
        # "cpu" here only keeps LitServe from importing torch to look for devices: `plan` decides.
        super().__init__(apis, accelerator="cpu", disable_openapi_url=True)
        self.plan, self.bulk_plan = plan, bulk_plan
        self.uvicorn_graceful_timeout = settings.drain_timeout
        self.board: Any = None
        self.failure: str | None = None
        self.restarts = 0
        self.draining = multiprocessing.RawValue("b", 0)
        self.busy: Any = []  # requests being answered, by HTTP process
        self._settings = settings
        self._ledger = Ledger()
        self._seats: list[Seat] = []
        self._unused: list[Seat] = []  # of workers that are not started yet
        self._sockets: list[Any] = []
        self._fronts: list[Front] = []
        self._told: dict[str, Any] = {}
        self._stopping = threading.Event()

    # -- laying the queues ---------------------------------------------------------------------

    def _inference_workers_config_for_api(self, api_path: str) -> list[str]:
        kind = api_path.strip("/")
        return [*self.plan[kind], *self.bulk_plan.get(kind, ())]

    def launch_inference_worker(self, lit_api: LitAPI) -> list[Any]:
        return [self._fill(seat) for seat in self._seats if seat.api is lit_api]

    def _fill(self, seat: Seat) -> Any:
        seat.born = time.monotonic()
        seat.process = self.launch_single_inference_worker(seat.api, seat.worker)
        return seat.process

    def _init_manager(self, num_api_servers: int) -> Any:
        manager = SyncManager()
        manager.start(die_with_parent)
        self._manager = manager
        self.workers_setup_status = manager.dict()
        self._shutdown_event = manager.Event()
        self.board = manager.dict()
        self.busy = multiprocessing.RawArray("i", num_api_servers)
        # every item let in may be a job of its own, and a first request is let in beyond the bound
        most = len(self.plan) * (self._settings.max_queue + self._settings.max_items)
        self._ledger = Ledger(num_api_servers, max(SLOTS, most))
        for api in self.litapi_connector:
            self.litapi_request_queues[api.api_path], api.bulk_jobs = Channel(), Channel()
            api.board, api.ledger = self.board, self._ledger
        self._transport = [Channel() for _ in range(num_api_servers)]  # an inbox for each
        self._lay_seats()
        return manager

    def _lay_seats(self) -> None:
        for api in self.litapi_connector:
            first = len(self.plan[api.kind])
            count = first + len(self.bulk_plan.get(api.kind, ()))
            api.vitals = Vitals(count, self._settings.decode_threads or THREADS)
            api.bulk_from = first if first < count else None
            self._seats += [Seat(api, api.kind, worker) for worker in range(first)]
            self._unused += [Seat(api, api.kind, n, bulk=True) for n in range(first, count)]
        devices = [self.plan[seat.kind][seat.worker] for seat in self._seats]
        for seat, urgent in zip(self._seats, urgency(devices), strict=True):
            seat.urgent = urgent
            seat.api.urgency = [*(seat.api.urgency or ()), urgent]

    def dispatcher(self, consumer: int) -> Dispatcher:
        queues = {
            api.kind: (self.litapi_request_queues[api.api_path], api.bulk_jobs)
            for api in self.litapi_connector
        }
        return Dispatcher(queues, self._transport[consumer], consumer, self._ledger)

    # -- starting ------------------------------------------------------------------------------

    def verify_worker_status(self) -> None:
        """Wait until every worker is ready. Raises StartError: one failed, died or took longer than
        `start_timeout`; the rest are ended."""
        try:
            self._await_workers()
            self.ready()
        except BaseException:
            self._end_workers()
            raise

    def _await_workers(self) -> None:
        waiting, limit = list(self._seats), self._settings.start_timeout
        deadline = time.monotonic() + limit
        with _bar(len(waiting)) as bar:
            while waiting:
                for seat in list(waiting):
                    status = self.workers_setup_status.get(seat.key)
                    if status == WorkerSetupStatus.READY:
                        waiting.remove(seat)
                        bar.update()
                    elif status == WorkerSetupStatus.ERROR or not seat.process.is_alive():
                        raise StartError(self._reason(seat))
                if time.monotonic() > deadline:
                    raise StartError(f"the workers did not load within {limit:g} s")
                time.sleep(0.05)

    def _reason(self, seat: Seat) -> str:
        default = f"the {seat.kind} worker {seat.worker} ended while it was loading"
        return str(self.board.get(f"{seat.key}_failure", default))

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
        self._config = functools.partial(
            uvicorn.Config,
            port=port,
            log_level=log_level,
            timeout_graceful_shutdown=self.uvicorn_graceful_timeout,
            **options,
        )
        for listener in sockets:
            try:
                listener.listen(options.get("backlog", 2048))
            except OSError:  # only one of those who bound it may listen
                raise StartError(f"port {port} was taken by another program meanwhile") from None
        self.listening()
        self._fronts = [Front(consumer) for consumer in range(count)]
        for front in self._fronts:
            self._fork(front)
        self._tell_live()
        return {}  # LitServe looks after none of them

    def _fork(self, front: Front) -> None:
        make, name = multiprocessing.get_context("fork").Process, f"http-{front.consumer}"
        process = make(target=self._run_front, args=(front.consumer,), name=name)
        process.start()
        front.process, front.reported = process, False

    def _run_front(self, consumer: int) -> None:
        # Ctrl-C goes to the main process alone, which then drains this one. It has no session of
        # its own: the kernel would schedule that as a group, in which a bulk worker's idle policy
        # does not count.
        os.setpgrp()
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # a terminal would stop what logs to it
        die_with_parent()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.app.response_queue_id = consumer
        config, alone = self._config(app=self.app.wrapped()), len(self._fronts) == 1
        GuardedServer(config, alone=alone).run(self._sockets)

    # -- supervision ---------------------------------------------------------------------------

    def _start_worker_monitoring(self, manager: Any, fronts: dict[int, Any]) -> None:
        del manager, fronts
        threading.Thread(target=self._supervise, daemon=True, name="siglit-supervisor").start()

    def _supervise(self) -> None:
        while not self._stopping.wait(TICK):
            self._look()
        threading.Event().wait()  # the children it started are tied to this thread's life

    def _look(self) -> None:
        try:
            self._start_bulk_workers()
            self._look_after_workers()
            self._look_after_fronts()
            self.tend()
        except (EOFError, OSError):  # the manager is gone: nothing can be supervised
            if not self._stopping.is_set():  # else the server ended meanwhile
                self._fail("the queues of the server were lost")

    def _start_bulk_workers(self) -> None:
        """Those of a tower, once a bulk job waits for them."""
        for seat in [seat for seat in self._unused if not seat.api.bulk_jobs.empty()]:
            log.info("starting %s worker %d, for bulk", seat.kind, seat.worker)
            self._fill(seat)
            self._unused.remove(seat)
            self._seats.append(seat)

    def _look_after_workers(self) -> None:
        statuses = dict(self.workers_setup_status)
        for seat in self._seats:
            if not seat.process.is_alive():
                self._refill(seat, statuses.get(seat.key))
            elif complaint := self._complaint(seat):
                log.error("%s worker %d %s; ending it", seat.kind, seat.worker, complaint)
                seat.process.kill()  # also one that is stopped
        statuses = dict(self.workers_setup_status)  # a place that was just filled again is loading
        if statuses != self._told:
            self._told = statuses
            self._tell_live()

    def _complaint(self, seat: Seat) -> str:
        pid, limit = seat.process.pid, self._settings.decode_timeout
        if seat.watcher.slow(pid, limit):
            return f"decodes one image for more than {limit:g} s of CPU time"
        patience = self._settings.hang_timeout * (STARVED if seat.bulk else 1)
        return "hangs" if seat.watcher.hangs(pid, patience) else ""

    def _look_after_fronts(self) -> None:
        for front in self._fronts:
            process = front.process
            if process.is_alive() or self._stopping.is_set():
                continue
            if not front.reported:
                pause = front.died()
                told = "another" if pause == 0 else f"another in {pause:g} s"
                how = ended(process.exitcode)
                log.error("HTTP process %d ended (%s); starting %s", front.consumer, how, told)
                forget(process.pid)
                self.busy[front.consumer] = 0  # what it was answering will never end
            if time.monotonic() >= front.not_before:
                front.born = time.monotonic()
                self._fork(front)
            self._tell_live()

    def children(self) -> dict[str, int]:
        fronts = {f"http-{front.consumer}": front.process.pid for front in self._fronts}
        return {**fronts, **{seat.key: seat.process.pid for seat in self._seats}}

    def tend(self) -> None:
        """Called every tick of the supervision, to look after other children."""

    def _refill(self, seat: Seat, status: Any) -> None:
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
        slow = seat.watcher.forget()
        if seat.urgent is not None:
            seat.urgent.say(False)
        forget(seat.process.pid)
        pause = min(10.0, 2.0**seat.failures) if now - seat.born < 10.0 else 0.0
        seat.not_before = now + (RETRY_AFTER if seat.failures >= FAILURES else pause)
        self.restarts += 1
        self._fill(seat)
        self._tell((LOST, (seat.kind, slow), seat.worker))

    def _served_by_others(self, lost: Seat) -> bool:
        """Whether another worker of this tower is well: one lost card is not the end of seven, and
        without its bulk a tower serves the others."""
        return any(
            seat.kind == lost.kind
            and seat is not lost
            and seat.bulk <= lost.bulk
            and seat.process.is_alive()
            and self.workers_setup_status.get(seat.key) == WorkerSetupStatus.READY
            for seat in self._seats
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
        for inbox in self._transport:
            inbox.put(message)

    # -- ending --------------------------------------------------------------------------------

    def _perform_graceful_shutdown(
        self, manager: Any, uvicorn_workers: dict[int, Any], shutdown_reason: str = "normal"
    ) -> None:
        del manager, uvicorn_workers, shutdown_reason
        self._stopping.set()
        deadline = time.monotonic() + self.uvicorn_graceful_timeout
        self.draining.value = 1
        time.sleep(min(LINGER, self.uvicorn_graceful_timeout / 2))  # balancers look away
        while self._answering() and time.monotonic() < deadline - 1.0:
            time.sleep(0.05)
        for listener in self._sockets:  # or new clients would wait in its backlog for nothing
            listener.close()
        fronts = [front.process for front in self._fronts if front.process is not None]
        self._end(fronts, max(1.0, deadline - time.monotonic()))
        self._end_workers()

    def _answering(self) -> bool:
        """Whether HTTP processes have requests to answer; one that died never will."""
        there = [f for f in self._fronts if f.process is not None and f.process.is_alive()]
        return any(self.busy[front.consumer] for front in there)

    def _end_workers(self) -> None:
        """And the manager, before its socket's folder is removed, or it ends with a traceback."""
        self._end([seat.process for seat in self._seats], 5.0)
        with contextlib.suppress(EOFError, OSError):
            self._manager.shutdown()

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
