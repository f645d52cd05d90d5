"""Prometheus across processes: every process counts for itself, `/metrics` adds up.

prometheus_client chooses its way of storing at its first import, so each scenario runs in a Python
of its own and prints what `/metrics` would say.
"""

import fcntl
import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from litapi.metrics import sweep
from tests.support.command import python

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@functools.cache
def scenario(name: str) -> Samples:
    """Run a function of this file in a fresh Python and read the exposition that it prints."""
    from prometheus_client.parser import text_string_to_metric_families

    with TemporaryDirectory() as home:
        text = python(f"from tests.test_metrics import {name}; {name}()", TMPDIR=home).stdout
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def child(work: Callable[[], None], wait: bool = True) -> int:
    """Fork, work and end; with `wait` False the child lives until this process ends."""
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        work()
        os.write(done, b".")
        time.sleep(0 if wait else 30)
        os._exit(0)
    os.read(ready, 1)
    if wait:
        os.waitpid(pid, 0)
    return pid


def show() -> None:
    from litapi.metrics import exposition

    sys.stdout.write(exposition().decode())
    sys.stdout.flush()


def all_calls() -> None:
    """Every call once, in one process."""
    from cache import Watcher
    from litapi.messages import Reply
    from litapi.metrics import Metrics, connection_refused, exposition, held, lay

    lay()
    metrics = Metrics()
    first = exposition().splitlines()  # may come before the first request
    assert [line for line in first if line[:1] != b"#" and not line.endswith(b" 0.0")] == []
    for status, seconds in ((200, 0.004), (200, 0.4), (429, 0.001)):
        metrics.answered("/embed_text", status, seconds)
    metrics.computed("text", False, "", 1, Reply(b"", [1], [], {}, 0.003, 0.02, 0.2))
    metrics.tiers("memory+redis (shared)")
    for items in (2, 3):
        metrics.given_up("image", items)
    metrics.load("text", 4, 0.5, 9, 1)
    held("bodies", 1000, 4000)
    for code in ("invalid_http", "request_timeout", "invalid_http"):
        connection_refused(code)
    watcher: Watcher = metrics  # the cache takes it as it is
    for result, many in (("hit", 3), ("miss", 2), ("hit", 4)):
        watcher.looked_up("l1", result, many)
    watcher.lookup_seconds("redis", 0.003)
    watcher.bytes("l1", 4096)
    watcher.evicted(5)
    watcher.breaker("open")
    watcher.queue(6)
    watcher.dropped(7)
    watcher.written(8)
    watcher.problem("read", "timeout", True)
    metrics.tell()
    metrics.tell()  # has nothing left to tell
    show()


def observed() -> None:
    """The same values in two histograms: by prometheus_client, and all at once."""
    from litapi.metrics import _histogram, lay, observe_all

    lay()
    values = (0.0005, 0.001, 0.004, 0.4, 7.0, 99.0, 0.001)
    for value in values:
        _histogram("siglit_one_by_one", "Seconds").observe(value)
    observe_all(_histogram("siglit_at_once", "Seconds"), values)
    show()


def two_processes() -> None:
    """Two HTTP processes, one of them gone; the parent that answers counted nothing itself."""
    from litapi.metrics import Metrics, forget, lay

    lay()

    def work(n: int, state: str) -> None:
        metrics = Metrics()
        for _ in range(n):
            metrics.answered("/score", 200, 0.001)
        metrics.bytes("l1", 100 * n)
        metrics.queue(n)
        metrics.breaker(state)
        metrics.tell()

    gone = child(lambda: work(2, "open"))
    alive = child(lambda: work(3, "closed"), wait=False)
    forget(gone)
    show()
    os.kill(alive, 9)


def full_batches() -> None:
    """A worker's batches; then a second server on this machine, and a process without metrics."""
    from litapi.metrics import BatchMetrics, forget, lay

    first = lay()
    batches = BatchMetrics("image")
    batches.observe(8, 2048)
    batches.observe(1, 256)
    show()
    second = lay()
    assert first != second
    assert not list(second.glob("*.db"))
    assert os.environ.pop("PROMETHEUS_MULTIPROC_DIR") == str(second)
    forget(os.getpid())


def own_processes() -> None:
    """The main process looks at itself and at one that is gone."""
    from litapi.metrics import lay, observe_processes

    lay()
    gone = child(lambda: None)
    observe_processes({"server": os.getpid(), "text_0": gone}, restarts=2)
    show()


def value(samples: Samples, name: str, **labels: str) -> float:
    """The sample of that name whose labels hold at least these, summed where there are several."""
    wanted = set(labels.items())
    found = [one for (key, has), one in samples.items() if key == name and wanted <= has]
    assert found, f"no {name} with {labels}"
    return sum(found)


COUNTED: dict[str, list[tuple[str, dict[str, str], float]]] = {
    "all_calls": [
        ("siglit_requests_total", {"route": "/embed_text", "status": "200"}, 2),
        ("siglit_requests_total", {"route": "/embed_text", "status": "429"}, 1),
        ("siglit_request_seconds_count", {"route": "/embed_text"}, 3),
        ("siglit_request_seconds_bucket", {"route": "/embed_text", "le": "0.005"}, 2),
        ("siglit_request_seconds_bucket", {"route": "/embed_text", "le": "0.5"}, 3),
        ("siglit_request_seconds_sum", {"route": "/embed_text"}, 0.405),
        ("siglit_stage_seconds_sum", {"kind": "text", "stage": "queue"}, 0.003),
        ("siglit_stage_seconds_sum", {"kind": "text", "stage": "decode"}, 0.02),
        ("siglit_stage_seconds_sum", {"kind": "text", "stage": "infer"}, 0.2),
        ("siglit_held_bytes", {"what": "bodies"}, 1000),
        ("siglit_held_bytes_bound", {"what": "bodies"}, 4000),
        ("siglit_items_given_up_total", {"kind": "image"}, 5),
        ("siglit_connections_refused_total", {"code": "invalid_http"}, 2),
        ("siglit_connections_refused_total", {"code": "request_timeout"}, 1),
        ("siglit_queue_depth", {"kind": "text"}, 4),
        ("siglit_queue_age_seconds", {"kind": "text"}, 0.5),
        ("siglit_items_in_flight", {"kind": "text"}, 9),
        ("siglit_refused_at_admission", {"kind": "text"}, 1),
        ("cache_requests_total", {"tier": "l1", "result": "hit"}, 7),
        ("cache_requests_total", {"tier": "l1", "result": "miss"}, 2),
        ("cache_lookup_seconds_count", {"tier": "redis"}, 1),
        ("cache_bytes", {"tier": "l1"}, 4096),
        ("cache_l1_evictions_total", {}, 5),
        ("cache_breaker_state", {}, 2),
        ("cache_problem_info", {"side": "read", "reason": "timeout"}, 1),
        ("cache_write_queue", {}, 6),
        ("cache_write_dropped_total", {}, 7),
        ("cache_written_total", {}, 8),
        ("cache_tier_info", {"tiers": "memory+redis (shared)"}, 1),
    ],
    "two_processes": [
        ("siglit_requests_total", {"route": "/score"}, 5),
        ("siglit_request_seconds_count", {"route": "/score"}, 5),
        ("cache_bytes", {"tier": "l1"}, 300),
        ("cache_write_queue", {}, 3),
        ("cache_breaker_state", {}, 0),
    ],
    "full_batches": [
        ("siglit_batch_items_count", {"kind": "image"}, 2),
        ("siglit_batch_items_sum", {"kind": "image"}, 9),
        ("siglit_batch_cost_sum", {"kind": "image"}, 2304),
    ],
}


@pytest.mark.parametrize(
    ("play", "name", "labels", "number"),
    [(play, *row) for play, rows in COUNTED.items() for row in rows],
)
def test_what_is_counted_is_shown(
    play: str, name: str, labels: dict[str, str], number: float
) -> None:
    """Every call has its metric, with the labels that a dashboard asks by, also if told twice. An
    ended process keeps its share of a counter, which must never go back; what it held it holds no
    longer. A worker tells how full its batches are."""
    samples = scenario(play)
    assert all(one.startswith(("siglit_", "cache_")) for one, _ in samples)  # no other program's
    assert not any("pid" in dict(has) for _, has in samples)
    assert value(samples, name, **labels) == pytest.approx(number)


def test_values_told_at_once_read_as_if_told_one_by_one() -> None:
    """Bucket by bucket: an upgrade of prometheus_client may not change that unseen."""
    samples = scenario("observed")
    found: dict[str, Samples] = {"siglit_one_by_one": {}, "siglit_at_once": {}}
    for (name, labels), number in samples.items():
        metric, _, part = name.rpartition("_")
        found[metric][part, labels] = number
    assert found["siglit_at_once"] == pytest.approx(found["siglit_one_by_one"])
    assert value(samples, "siglit_at_once_count") == 7


def test_the_main_process_tells_of_its_children() -> None:
    """Memory and CPU by role; a child that has just ended is left out, not an error."""
    samples = scenario("own_processes")
    assert value(samples, "siglit_process_resident_bytes", role="server") > 1 << 20
    assert value(samples, "siglit_process_cpu_seconds", role="server") > 0
    assert value(samples, "siglit_worker_restarts") == 2
    roles = {dict(has).get("role") for name, has in samples if name == "siglit_process_cpu_seconds"}
    assert roles == {"server"}


def test_folders_of_dead_servers_are_removed_and_no_others(tmp_path: Path) -> None:
    """A lock tells who lives; what is young may not have been locked yet."""
    dead, living, young, link = (
        tmp_path / f"siglit-metrics-{name}" for name in ("dead", "living", "young", "link")
    )
    other = tmp_path / "other"
    for folder in (dead, living, young, other):
        folder.mkdir()
        (folder / "counter_1.db").touch()
        os.utime(folder, None if folder == young else (0, 0))
    link.symlink_to(tmp_path)
    lock = os.open(living, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    sweep(tmp_path)
    os.close(lock)
    assert {*tmp_path.iterdir()} == {living, young, link, other}


def no_room() -> None:
    """A file system that has no room from the third file on."""
    from litapi import metrics

    metrics.lay()
    real, asked = os.posix_fallocate, []

    def full(descriptor: int, offset: int, size: int) -> None:
        asked.append(size)
        if len(asked) > 2:
            raise OSError(28, "No space left on device")
        real(descriptor, offset, size)

    os.posix_fallocate = full
    counted = metrics.Metrics()
    for number in range(2000):  # files grow too
        counted.answered(f"/route{number}", 200, 0.01)
    counted.tell()
    counted.breaker("closed")
    counted.queue(1)
    assert metrics.lacks_room()
    assert len(asked) > 4
    sys.stdout.buffer.write(metrics.exposition())


def test_metrics_without_room_are_kept_in_memory() -> None:
    """The process lives on, what has room is exposed, and what has none is left out."""
    assert scenario("no_room")
