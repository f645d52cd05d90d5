"""Load on a server while its Redis stands still: what a client sees before, during and after.

Redis is stopped (SIGSTOP): the worst outage, for it accepts connections and never answers. The
server has no memory of its own here, so every look-up goes to Redis. The load is an open loop: it
keeps coming at its rate whatever the server does, so a stall cannot hide.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from bench.load.recording import Sample
from bench.rig.redis_server import RedisServer
from notebooks.figures.chart import COLOURS, Chart, canvas, finished, round_numbers, spans
from notebooks.figures.trial import loading, recorded, serving

ALONE = {"memory_cache_mb": 0, "answer_cache_mb": 0}
PATIENCE = 60.0
LOOK = 0.02
MARGIN = 0.05  # an answer may have been on its way


@dataclass(frozen=True, slots=True)
class Hang:
    """The samples, and when Redis stood still: seconds on the samples' clock."""

    samples: list[Sample]
    start: float
    end: float

    @classmethod
    def play(cls, rate: float, before: float, lasting: float, after: float) -> Hang:
        """Nine of ten items repeat; `rate` is requests a second, the rest seconds."""
        with RedisServer() as redis, serving({**ALONE, "redis_url": redis.url}) as server:
            duration = before + lasting + after
            load = loading(server.url, rate=rate, duration=duration, repeat=0.9)
            origin = time.monotonic()
            stopper = _Stopper(redis, before, lasting)
            stopper.start()
            try:
                recording = recorded(load)
            finally:
                stopper.join()
        samples = [sample for stage in recording.measured for sample in stage.samples]
        return cls(samples, stopper.stopped - origin, stopper.resumed - origin)

    def during(self) -> list[Sample]:
        """Sent while Redis stood still, and answered before it went on."""
        start, end = self.start + MARGIN, self.end - MARGIN
        return [one for one in self.samples if start < one.sent and one.done < end]

    def chart(self) -> Chart:
        """Each request as a point: when it was due, and how long it took."""
        zero = min(one.scheduled for one in self.samples)
        chart = canvas(
            "Every request while Redis stands still", "time (s)", "latency (ms)",
        )  # fmt: skip
        axes = chart.axes[0]
        for place, state in enumerate(dict.fromkeys(map(_state, self.samples))):
            shown = [one for one in self.samples if _state(one) == state]
            times = [one.scheduled - zero for one in shown]
            latencies = [1e3 * one.latency for one in shown]
            axes.scatter(times, latencies, s=9, color=COLOURS[place], label=state)
        axes.set_yscale("log")
        round_numbers(axes.yaxis)
        spans(axes, {"Redis stopped": (self.start - zero, self.end - zero)})
        return finished(chart)


def _state(sample: Sample) -> str:
    """What the cache said, or why there is no answer."""
    return sample.error or next(iter(sample.cache), "refused")


class _Stopper(threading.Thread):
    """Stops Redis some seconds after the first hits, and lets it go on."""

    def __init__(self, redis: RedisServer, before: float, lasting: float) -> None:
        super().__init__(daemon=True)
        self.stopped = self.resumed = 0.0
        self._redis, self._before, self._lasting = redis, before, lasting

    def run(self) -> None:
        self._await_hits()
        time.sleep(self._before)
        self._redis.pause()
        self.stopped = time.monotonic()
        time.sleep(self._lasting)
        self._redis.resume()
        self.resumed = time.monotonic()

    def _await_hits(self) -> None:
        ends = time.monotonic() + PATIENCE
        with self._redis.client() as client:
            while not client.info("stats")["keyspace_hits"] and time.monotonic() < ends:
                time.sleep(LOOK)
