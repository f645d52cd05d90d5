"""Prometheus, across processes.

`lay` makes an empty folder before prometheus_client is first imported; each process writes
memory-mapped files of its own there, and `/metrics` adds them up. Counts of the hot path are kept
in plain Python, and are passed on twice a second and before this process answers `/metrics`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import logging
import multiprocessing
import os
import shutil
import stat
import tempfile
import time
from bisect import bisect_left
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache as memoise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from litapi.messages import Reply

if TYPE_CHECKING:  # prometheus_client reads its folder from the environment when first imported
    from prometheus_client import Counter, Gauge, Histogram

STAGES = ("queue", "decode", "infer")
CLASSES = ("interactive", "bulk")
MOST_CLIENTS = 64  # that have their own name in metrics
FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)  # seconds
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # items of a batch
COSTS = (64, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
Mode = Literal["livesum", "livemax", "sum", "mostrecent"]

log = logging.getLogger("siglit.metrics")

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "siglit-metrics-"
_ROOM = "room"  # an empty file, removed once a process has no room for its own
LONGEST = 107 - len("/siglit-metrics-xxxxxxxx/listener-xxxxxxxx")  # bytes, of a socket's path
_YOUNG = 60.0  # seconds in which a folder's owner may not have locked it yet


def lay() -> Path:
    """Make the folder that the processes of this server share; call before anything else here.

    It is also multiprocessing's temporary folder. If this server is killed, the next start of any
    server removes it.

    Raises:
        OSError: no temporary folder can be written to, or its path is too long for sockets.
    """
    temporary = Path(tempfile.gettempdir())
    if len(os.fsencode(temporary)) > LONGEST:
        raise OSError(errno.ENAMETOOLONG, f"the path is longer than {LONGEST} bytes", temporary)
    sweep(temporary)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    with contextlib.suppress(OSError):
        (folder / _ROOM).touch()
    lock = os.open(folder, os.O_RDONLY)  # held as long as this process and its forks live
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.environ[_VARIABLE] = str(folder)
    multiprocessing.current_process()._config["tempdir"] = str(folder)  # type: ignore[attr-defined]
    return folder


def sweep(temporary: Path) -> None:
    """Remove the folders of servers that were killed: their locks are free."""
    for folder in temporary.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            facts = folder.lstat()
            young = time.time() - facts.st_mtime < _YOUNG
            if facts.st_uid == os.getuid() and stat.S_ISDIR(facts.st_mode) and not young:
                _remove_unheld(folder)


def _remove_unheld(folder: Path) -> None:
    lock = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


@memoise
def _prometheus() -> Any:
    """prometheus_client, which then allocates its files on disk before it writes to them.

    It maps sparse files into memory, and where the file system is full the first write to a page
    kills the process by SIGBUS. A process that gets no room keeps its numbers in memory: they are
    missing in `/metrics`, and everything else works.
    """
    import prometheus_client
    from prometheus_client import mmap_dict

    mmap_dict.open = _opened  # type: ignore[attr-defined]
    return prometheus_client


def _opened(path: str, mode: str) -> Any:
    return open(path, mode) if mode == "rb" else _Backing(path)


class _Backing(io.FileIO):
    """A file as prometheus_client uses one: `truncate` makes room, or moves it to memory."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        try:
            super().__init__(path, "a+b")
        except OSError as error:
            super().__init__(os.memfd_create("siglit-metrics"), "r+b")
            _say_once(self._path.parent, error)

    def truncate(self, size: int | None = None) -> int:
        assert size is not None
        try:
            os.posix_fallocate(self.fileno(), 0, size)
        except OSError as error:
            self._move(size)
            _say_once(self._path.parent, error)
        return size

    def _move(self, size: int) -> None:
        memory, here = os.memfd_create("siglit-metrics"), self.fileno()
        os.ftruncate(memory, size)
        os.pwrite(memory, os.pread(here, size, 0), 0)
        if os.fstat(here).st_size == 0:
            self._path.unlink(missing_ok=True)  # unreadable; one that only failed to grow stays
        os.dup2(memory, here, inheritable=False)
        os.close(memory)


def _say_once(folder: Path, error: OSError) -> None:
    """Log it in the first process of this server that has no room."""
    try:
        os.unlink(folder / _ROOM)  # for which there is room
    except OSError:
        return
    log.warning(
        "the temporary folder has no room for metrics (%s): some will be missing in /metrics",
        error.strerror,
    )


def lacks_room() -> bool:
    """Whether metrics of some process of this server are missing, for lack of room."""
    folder = os.environ.get(_VARIABLE)
    return folder is not None and not (Path(folder) / _ROOM).exists()


@memoise
def _counter(name: str, text: str, *labels: str) -> Counter:
    made: Counter = _prometheus().Counter(name, text, labels)
    return made


@memoise
def _gauge(name: str, text: str, *labels: str, mode: Mode = "livesum") -> Gauge:
    """`mode` says how the values of several processes are combined."""
    made: Gauge = _prometheus().Gauge(name, text, labels, multiprocess_mode=mode)
    return made


def _latest(name: str, text: str, *labels: str) -> Gauge:
    """Of the main process, which alone sets it."""
    return _gauge(name, text, *labels, mode="mostrecent")


@memoise
def _histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...] = FAST) -> Histogram:
    made: Histogram = _prometheus().Histogram(name, text, labels, buckets=buckets)
    return made


class Metrics:
    """What one HTTP process counts. Also the cache's `Watcher`.

    prometheus_client takes a lock, asks for the process id and writes to the shared file six times
    for one cache hit, a tenth of a hit's cost. So what every request counts is collected here and
    passed on by `tell`; a process that is killed loses the last half second of it.
    """

    def __init__(self) -> None:
        self._answers: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
        self._results: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._trips: defaultdict[str, list[float]] = defaultdict(list)
        self._jobs: defaultdict[str, list[tuple[float, float, float]]] = defaultdict(list)
        self._held: dict[str, int] = {}
        self._waits: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        self._shares: defaultdict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
        self._clients: set[str] = set()
        self.turned_away("", False, "overloaded", 0)
        self.evicted(0)  # a metric without labels is exposed from the start
        self.breaker("closed")
        self.queue(0)
        self.dropped(0)
        self.written(0)

    def answered(self, route: str, status: int, seconds: float) -> None:
        self._answers[route, status].append(seconds)

    def given_up(self, kind: str, items: int) -> None:
        text = "Items whose clients left before work on them began"
        _counter("siglit_items_given_up", text, "kind").labels(kind).inc(items)

    def load(self, kind: str, depth: int, age: float, items: int, refused: int) -> None:
        """What waits for a tower, as this process sees it; `age` in seconds."""
        oldest = _gauge("siglit_queue_age_seconds", "Age of the oldest job", "kind", mode="livemax")
        back = "Jobs told to come back"
        _gauge("siglit_queue_depth", "Jobs waiting for a worker", "kind").labels(kind).set(depth)
        oldest.labels(kind).set(age)
        _gauge("siglit_items_in_flight", "Items under way", "kind").labels(kind).set(items)
        _gauge("siglit_refused_at_admission", back, "kind", mode="sum").labels(kind).set(refused)

    def computed(self, kind: str, bulk: bool, client: str, items: int, reply: Reply) -> None:
        """So many items of a client, as the reply says."""
        seconds = reply.queue_seconds
        self._jobs[kind].append((seconds, reply.decode_seconds, reply.infer_seconds))
        self._waits[kind, CLASSES[bulk]].append(seconds)
        self._shares[self._named(client), CLASSES[bulk]].append((items, items * seconds))

    def turned_away(self, client: str, bulk: bool, code: str, n: int = 1) -> None:
        text, labels = "Requests refused, by client", ("client", "class", "code")
        counter = _counter("siglit_client_refused", text, *labels)
        counter.labels(self._named(client), CLASSES[bulk], code).inc(n)

    def waiting(self, kind: str, bulk: bool, items: int, age: float) -> None:
        """What is held in this process until its turn comes; `age` of the oldest in seconds."""
        labels = kind, CLASSES[bulk]
        held = _gauge("siglit_waiting_items", "Items held for their turn", "kind", "class")
        text = "Age of the oldest work held for its turn"
        oldest = _gauge("siglit_waiting_age_seconds", text, "kind", "class", mode="livemax")
        held.labels(*labels).set(items)
        oldest.labels(*labels).set(age)

    def _named(self, client: str) -> str:
        if client not in self._clients:
            if len(self._clients) >= MOST_CLIENTS:
                return "other"
            self._clients.add(client)
        return client

    def tiers(self, names: str) -> None:
        _gauge("cache_tier_info", "Tiers in use", "tiers", mode="livemax").labels(names).set(1)

    # -- the cache's Watcher -------------------------------------------------------------------

    def looked_up(self, tier: str, result: str, n: int) -> None:
        self._results[tier, result] += n

    def lookup_seconds(self, tier: str, seconds: float) -> None:
        self._trips[tier].append(seconds)

    def bytes(self, tier: str, n: int) -> None:
        self._held[tier] = n

    def evicted(self, n: int) -> None:
        _counter("cache_l1_evictions", "Vectors that left the process's memory").inc(n)

    def breaker(self, state: str) -> None:
        gauge = _gauge("cache_breaker_state", "0 closed, 1 half-open, 2 open", mode="livemax")
        gauge.set({"closed": 0, "half-open": 1, "open": 2}.get(state, 2))

    def problem(self, side: str, reason: str, there: bool) -> None:
        text = "1 for why Redis does not serve, by what it was asked for"
        gauge = _gauge("cache_problem_info", text, "side", "reason", mode="livemax")
        gauge.labels(side, reason).set(there)

    def queue(self, depth: int) -> None:
        _gauge("cache_write_queue", "Vectors to be written").set(depth)

    def dropped(self, n: int) -> None:
        _counter("cache_write_dropped", "Vectors that were never written").inc(n)

    def written(self, n: int) -> None:
        _counter("cache_written", "Vectors written to Redis").inc(n)

    def tell(self) -> None:
        requests = _counter("siglit_requests", "Answers by route and status", "route", "status")
        answers = _histogram("siglit_request_seconds", "Request to answer", "route")
        for (route, status), seconds in self._answers.items():
            requests.labels(route, str(status)).inc(len(seconds))
            observe_all(answers.labels(route), seconds)
        stages = _histogram("siglit_stage_seconds", "Time of a job in each stage", "kind", "stage")
        for kind, jobs in self._jobs.items():
            for stage, times in zip(STAGES, zip(*jobs, strict=True), strict=True):
                observe_all(stages.labels(kind, stage), times)
        self._tell_shares()
        lookups = _counter("cache_requests", "Look-ups", "tier", "result")
        for (tier, result), n in self._results.items():
            lookups.labels(tier, result).inc(n)
        trips = _histogram("cache_lookup_seconds", "Round trips", "tier")
        for tier, seconds in self._trips.items():
            observe_all(trips.labels(tier), seconds)
        for tier, held in self._held.items():
            _gauge("cache_bytes", "Bytes held", "tier").labels(tier).set(held)
        for noted in (self._answers, self._jobs, self._results, self._trips, self._held):
            noted.clear()

    def _tell_shares(self) -> None:
        waits = _histogram("siglit_wait_seconds", "Time of a job in queues", "kind", "class")
        for labels, seconds in self._waits.items():
            observe_all(waits.labels(*labels), seconds)
        done = _counter("siglit_client_items", "Items computed", "client", "class")
        waited = _counter("siglit_client_wait_seconds", "Seconds they waited", "client", "class")
        for labels, shares in self._shares.items():
            done.labels(*labels).inc(sum(items for items, _ in shares))
            waited.labels(*labels).inc(sum(seconds for _, seconds in shares))
        self._waits.clear()
        self._shares.clear()


def observe_all(histogram: Histogram, values: Sequence[float]) -> None:
    """As `observe` for each value, with one write for each bucket."""
    places = Tally(bisect_left(histogram._upper_bounds, value) for value in values)
    for place, count in places.items():
        histogram._buckets[place].inc(count)
    histogram._sum.inc(sum(values))


class BatchMetrics:
    def __init__(self, kind: str) -> None:
        items = _histogram("siglit_batch_items", "Items in a batch", "kind", buckets=SIZES)
        cost = _histogram("siglit_batch_cost", "Tokens or patches", "kind", buckets=COSTS)
        self._items, self._cost = items.labels(kind), cost.labels(kind)

    def observe(self, items: int, cost: int) -> None:
        self._items.observe(items)
        self._cost.observe(cost)


def connection_refused(code: str) -> None:
    """A connection was ended with that error before there was a request to answer."""
    text = "Connections ended for what they did"
    _counter("siglit_connections_refused", text, "code").labels(code).inc()


def wrong_key() -> None:
    _counter("siglit_wrong_keys", "Requests with a key that is none of the server's").inc()


def held(what: str, size: int, bound: int) -> None:
    """This process holds `size` bytes of `what` for clients, of at most `bound`."""
    sizes = _gauge("siglit_held_bytes", "Bytes that clients make the server hold", "what")
    most = "The most of them before clients are refused"
    sizes.labels(what).set(size)
    _gauge("siglit_held_bytes_bound", most, "what").labels(what).set(bound)


def tower_computes_in(kind: str, precision: str, compiled: str) -> None:
    """Name what a tower runs in; `compiled` is "on" or "off"."""
    text, labels = "1 for what each tower runs in", ("kind", "precision", "compiled")
    _latest("siglit_tower_info", text, *labels).labels(kind, precision, compiled).set(1)


def observe_processes(roles: Mapping[str, int], restarts: int) -> None:
    """What the main process measures: CPU and memory of every process of `roles` (role → pid), how
    many workers were replaced, and the GPUs where there are any."""
    import psutil

    _latest("siglit_worker_restarts", "Workers replaced since the start").set(restarts)
    cpu = _latest("siglit_process_cpu_seconds", "CPU time used", "role")
    memory = _latest("siglit_process_resident_bytes", "Resident memory", "role")
    for role, pid in roles.items():
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            times = process.cpu_times()
            cpu.labels(role).set(times.user + times.system)
            memory.labels(role).set(process.memory_info().rss)
    _observe_gpus()


def _observe_gpus() -> None:
    import pynvml

    memory = _latest("siglit_gpu_memory_bytes", "GPU memory in use", "device")
    busy = _latest("siglit_gpu_utilization_ratio", "GPU utilisation", "device")
    for index, gpu in enumerate(_gpus()):
        device = f"cuda:{index}"
        with contextlib.suppress(pynvml.NVMLError):
            memory.labels(device).set(pynvml.nvmlDeviceGetMemoryInfo(gpu).used)
            busy.labels(device).set(pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100)


@memoise
def _gpus() -> list[Any]:
    """NVIDIA's handles, where there is a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


def exposition() -> bytes:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def forget(pid: int) -> None:
    """Remove the live gauges of an ended process from the sums."""
    from prometheus_client.multiprocess import mark_process_dead

    if os.environ.get(_VARIABLE):
        mark_process_dead(pid)  # type: ignore[no-untyped-call]
