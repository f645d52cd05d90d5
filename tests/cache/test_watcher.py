from cache.watcher import SILENT


def test_the_silent_watcher_hears_everything_and_says_nothing() -> None:
    """A cache needs no metrics to run."""
    SILENT.looked_up("l1", "hit", 1)
    SILENT.lookup_seconds("redis", 0.1)
    SILENT.bytes("l1", 1)
    SILENT.evicted(1)
    SILENT.breaker("open")
    SILENT.problem("read", "silent", True)
    SILENT.queue(1)
    SILENT.dropped(1)
    SILENT.written(1)
