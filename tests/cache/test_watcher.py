from __future__ import annotations

import inspect

from cache.watcher import SILENT, Silent, Watcher
from tests.support.recorder import Recorder


def methods(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if name[0] != "_"}


def test_the_silent_watcher_hears_everything_and_says_nothing() -> None:
    """A cache needs no metrics to run."""
    assert methods(Silent) == methods(Watcher)
    SILENT.looked_up("l1", "hit", 1)
    SILENT.lookup_seconds("redis", 0.1)
    SILENT.bytes("l1", 1)
    SILENT.evicted(1)
    SILENT.breaker("open")
    SILENT.queue(1)
    SILENT.dropped(1)
    SILENT.written(1)


def test_the_recorder_of_these_tests_is_a_watcher() -> None:
    """What the tests count is what a service would count."""
    watcher: Watcher = Recorder()
    assert methods(type(watcher)) == methods(Watcher)
