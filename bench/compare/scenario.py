"""The scenarios: what each asks, of whom, and what it was meant to show.

    base-text, base-image  true base size: is siglit at least as good as the best right baseline?
    int8                   true base size: what is left of int8's gain over HTTP?
    precisions             true base size: what bfloat16 and int8 gain on the best baseline
    demo-batch             64 items in a request: what is left of the bare towers' speed?
    demo-single            one item in a request: how many times plain LitServe?
    latency                one item at a time: what does the service add to the towers?
    zipf                   nine of ten items repeat, base size: what does the cache bring?
    crowd                  500 clients for a minute: is anybody lost?
    rates                  an open loop: at which rate does the latency break away?
    classes                base size: what does a flood of larger requests cost single texts?
    gpu-text, gpu-image    so400m-naflex, with `--device cuda:0`: what is a GPU's server worth?
    scale-out              two instances in place of one: what does that bring, do they share?

Inputs never repeat but in zipf and scale-out; elsewhere siglit's cache is off all the same, so that
no look-up is part of the figure. Only crowd runs siglit with all its defaults. A figure is compared
within each round, and the median of the ratios is judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any, Literal, get_args

from bench.compare.baselines.catalogue import SYSTEMS
from bench.compare.baselines.system import System
from bench.compare.point import Missing, Points, latency, throughput
from bench.compare.siglit import PATIENT, instances, siglit
from bench.load.workload import Kind
from bench.rig.command import Target, ratio

Size = Literal["base", "demo", "so400m"]
Judge = Callable[[Points], Iterator[Target]]

SIGLIT = siglit("siglit", "--cache", "off", *PATIENT)
CACHED = siglit("siglit-cached", *PATIENT)
UNCACHED = siglit("siglit-uncached", "--cache", "off", *PATIENT)
SOON = siglit("siglit", "--cache", "off", *PATIENT, cores="threads")
# The weights are random: their recall means nothing.
_INT8 = ("--precision", "int8", "--accept-loss", "on")
INT8 = siglit("siglit-int8", "--cache", "off", *PATIENT, *_INT8)
BFLOAT16 = siglit("siglit-bfloat16", "--cache", "off", *PATIENT, "--precision", "bfloat16")
DEFAULT = siglit("siglit-default", "--cache", "off", *PATIENT, "--precision", "auto")
AS_IT_COMES = siglit("siglit", cores="own")
CLASSES = siglit("siglit", "--cache", "off", *PATIENT, cores="own")
ONE, TWO = instances("1-instance", 1), instances("2-instances", 2)
LITSERVE = SYSTEMS["litserve"]
THREADED = SYSTEMS["gunicorn-threads"]  # of the baselines with right vectors the best, or nearly
RIVALS = (SYSTEMS["gunicorn-openvino"], SYSTEMS["gunicorn-openvino-float32"])
BASELINES = tuple(one for one in SYSTEMS.values() if one not in RIVALS)
BARE = "bare"  # decoded and computed; "bare-ready" is computed only
READY = "bare-ready"
LEVELS = (50, 100, 200, 500)
ON_GPU = (SIGLIT, SYSTEMS["flask-dev"], THREADED, LITSERVE)


@dataclass(frozen=True, slots=True)
class Part:
    """A closed loop at `levels` or an open one at `rates`, and the bare towers beside it."""

    name: str
    kind: Kind
    systems: tuple[System, ...] = ()
    levels: tuple[int, ...] = ()
    rates: tuple[float, ...] = ()
    items: int = 1  # in a request
    requests: int = 0  # of a level at least, and one for each client; 0: no such bound
    seconds: float = 0.0  # of a level; 0: no such bound
    repeat: float = 0.0  # share of items out of a universe that is sent before
    universe: int = 256  # how many items are in it
    flood: int = 0  # requests in flight beside, in bulk where a system has classes
    flood_items: int = 8  # in each of them
    warmup: int = 10
    bare: tuple[int, ...] = ()  # sizes of the bare towers' batches
    bare_seconds: float = 5.0  # for each of them
    precision: str = ""  # of the bare towers where it is not the ground's; systems choose their own

    def level_requests(self, level: int) -> int:
        """Requests of a closed level, so that each client gets an answer."""
        return max(level, self.requests) if self.requests else 0

    def changed(
        self,
        levels: Sequence[int] = (),
        rates: Sequence[float] = (),
        requests: int = 0,
        seconds: float = 0.0,
    ) -> Part:
        """With the options of a run: levels and rates where there are several, bounds anywhere.

        `requests` are of one item; of those with more items there are as many fewer.
        """
        return replace(
            self,
            levels=tuple(levels) if levels and len(self.levels) > 1 else self.levels,
            rates=tuple(rates) if rates and self.rates else self.rates,
            requests=self.requests and (math.ceil(requests / self.items) or self.requests),
            seconds=self.seconds and (seconds or self.seconds),
            bare_seconds=min(seconds or math.inf, self.bare_seconds),
        )


@dataclass(frozen=True, slots=True)
class Scenario:
    """`judges` make its targets of its points, each several or none."""

    name: str
    size: Size
    parts: tuple[Part, ...]
    judges: tuple[Judge, ...] = ()

    def judged(self, points: Points) -> tuple[list[Target], list[str]]:
        """The targets, and why others could not be judged."""
        targets: list[Target] = []
        unjudged: list[str] = []
        for judge in self.judges:
            try:
                for target in judge(points):  # one by one: those before a missing figure stay
                    targets.append(target)  # noqa: PERF402
            except Missing as reason:
                unjudged.append(f"{self.name}: {reason}")
        return targets, unjudged


def at_least(limit: float, system: str, to: str, part: str, points: Points) -> Iterator[Target]:
    """The best throughput of a system over another's."""
    one, other = (points.best(part, name, throughput) for name in (system, to))
    name = f"{part}: items/s of {system} ÷ {to}"
    yield Target(name, ratio(one, other), at_least=limit)


def beats(part: str, points: Points) -> Iterator[Target]:
    """Throughput and p99 against the best baseline in each, of those whose vectors are right."""
    for level in points.levels(part, SIGLIT.name):
        for what, limit in (("items/s", {"at_least": 1}), ("p99", {"at_most": 1})):
            name, found = _against(points, SIGLIT, part, level, BASELINES, what)
            yield Target(f"{part} at {level}: {what} ÷ best baseline ({name})", found, **limit)


def outruns(
    limit: float, system: System, rivals: Sequence[System], part: str, points: Points
) -> Iterator[Target]:
    """Throughput against the best right one of the rivals at each level, where there are any."""
    there = {one.name for one in rivals} & {*points.systems(part)}
    for level in points.levels(part, system.name) if there else ():
        name, more = _against(points, system, part, level, rivals, "items/s")
        title = f"{part} at {level}: items/s of {system.name} ÷ {name}"
        yield Target(title, more, at_least=limit)


def _against(
    points: Points, system: System, part: str, level: str, rivals: Sequence[System], what: str
) -> tuple[str, float]:
    """The right rival that is best by its median, and the median ratio to each round's best."""
    figure, best = (throughput, max) if what == "items/s" else (latency("p99"), min)
    right = points.right(part, level, [one.name for one in rivals])
    own = [figure(one) for one in points.at(part, system.name, level)]
    theirs = {name: [figure(one) for one in points.at(part, name, level)] for name in right}
    leader = best(right, key=lambda name: median(theirs[name]))
    return leader, ratio(own, [best(values) for values in zip(*theirs.values(), strict=True)])


def shields(
    limit: float, quiet: str, beside: str, rivals: Sequence[System], points: Points
) -> Iterator[Target]:
    """p99 beside a flood against that without, and against the best rival's beside it."""
    for level in points.levels(quiet, SIGLIT.name):
        alone, flooded = (
            [latency("p99")(one) for one in points.at(part, SIGLIT.name, level)]
            for part in (quiet, beside)
        )
        title = f"{beside} at {level}: p99"
        yield Target(f"{title} ÷ without it", ratio(flooded, alone), at_most=limit)
        name, less = _against(points, SIGLIT, beside, level, rivals, "p99")
        yield Target(f"{title} ÷ best baseline ({name})", less, at_most=1)


def adds_at_most(limit: float, part: str, points: Points) -> Iterator[Target]:
    """Milliseconds between the median of a lone client and that of the bare tower."""
    served = [latency("p50")(one) for one in points.at(part, SIGLIT.name, "1")]
    bare = [latency("p50")(one) for one in points.at(part, BARE, "batch 1")]
    added = median(one - other for one, other in zip(served, bare, strict=True))
    yield Target(f"{part}: p50 of siglit − bare, ms", added, at_most=limit)


def loses_nobody(system: str, part: str, points: Points) -> Iterator[Target]:
    """Percent of answers that are neither good nor 429, the worst over rounds and levels."""
    errors = max(points.best(part, system, lambda one: one.summary.errors_pct))
    yield Target(f"{part}: errors but 429 of {system}, %", errors, at_most=0)


def shares_hits(system: str, part: str, points: Points) -> Iterator[Target]:
    """Hits in Redis: what one instance computed, the other one served."""
    rounds = points.best(part, system, lambda one: one.summary.cache.get("hit-l2", 0))
    yield Target(f"{part}: another instance's hits with {system}", min(rounds), at_least=1)


def _part(kind: Kind, suffix: str, systems: Sequence[System], *levels: int, **how: Any) -> Part:
    return Part(f"{kind}{suffix}", kind, tuple(systems), levels, **how)


def _sized(name: str, size: Size, single: Part, full: Part, share: float) -> Scenario:
    """Single items against the best baseline, full requests against the bare towers."""
    judges = (partial(beats, single.name), partial(loses_nobody, SIGLIT.name, single.name))
    ceiling = partial(at_least, share, SIGLIT.name, BARE, full.name)
    return Scenario(f"{name}-{single.kind}", size, (single, full), (*judges, ceiling))


def _base(kind: Kind, requests: int, many: int) -> Scenario:
    systems = (SIGLIT, DEFAULT, *BASELINES, *RIVALS)
    single = _part(kind, "", systems, *LEVELS, requests=requests, warmup=4)
    batches = {"items": 32, "requests": many, "warmup": 1, "bare": (1, 2, 8, 32)}
    full = _part(kind, ", 32 items", (SIGLIT,), 2, **batches, bare_seconds=10)
    whole = _sized("base", "base", single, full, 0.95)
    rivals = (
        partial(outruns, 1.1, DEFAULT, RIVALS[:1], kind),
        partial(outruns, 1.1, SIGLIT, RIVALS[1:], kind),
        partial(outruns, 3.0, DEFAULT, BASELINES, kind),
    )
    return replace(whole, judges=(*whole.judges, *rivals))


def _gpu(kind: Kind, sizes: tuple[int, ...]) -> Scenario:
    single = _part(kind, "", ON_GPU, 64, 500, seconds=5, warmup=32)
    batches = {"items": 32, "seconds": 5, "warmup": 8, "bare": sizes}
    full = _part(kind, ", 32 items", (SIGLIT,), 16, **batches, bare_seconds=2)
    return _sized("gpu", "so400m", single, full, 0.6)


def _both(
    name: str,
    size: Size,
    suffix: str,
    level: int,
    *systems: System,
    judges: Sequence[Callable[[str, Points], Iterator[Target]]],
    **how: Any,
) -> Scenario:
    """A part for texts and one for images, judged alike; of a pair in `how` each gets its own."""
    parts = []
    for place, kind in enumerate(get_args(Kind)):
        own = {name: v[place] if isinstance(v, list) else v for name, v in how.items()}
        parts.append(_part(kind, suffix, systems, level, **own))
    judged = (partial(judge, one.name) for one in parts for judge in judges)
    return Scenario(name, size, tuple(parts), tuple(judged))


def _scenarios() -> Iterator[Scenario]:
    yield _base("text", requests=100, many=12)
    yield _base("image", requests=60, many=4)
    yield _both(
        "int8", "base", ", int8", 2, SIGLIT, INT8,
        judges=[partial(at_least, 0.95, INT8.name, BARE)],
        requests=[8, 4], items=32, warmup=1, precision="int8", bare=(2, 8, 32), bare_seconds=10,
    )  # fmt: skip
    yield _both(
        "precisions", "base", ", precisions", 50, SIGLIT, BFLOAT16, INT8, THREADED,
        judges=[partial(at_least, 1.5, BFLOAT16.name, THREADED.name),
                partial(at_least, 2.2, INT8.name, THREADED.name)],
        requests=[200, 100], warmup=8, precision="int8",
    )  # fmt: skip
    yield _both(
        "demo-batch", "demo", ", 64 items", 4, SIGLIT,
        judges=[partial(at_least, 0.6, SIGLIT.name, BARE)],
        requests=[200, 24], items=64, warmup=4, bare=(8, 64),
    )  # fmt: skip
    yield _both(
        "demo-single", "demo", "", 64, SIGLIT, LITSERVE,
        judges=[partial(at_least, 3, SIGLIT.name, LITSERVE.name)],
        requests=[3000, 1000], warmup=64,
    )  # fmt: skip
    yield _both(
        "latency", "demo", "", 1, SOON,
        judges=[partial(adds_at_most, 1.5)],
        requests=300, warmup=30, bare=(1,), bare_seconds=3,
    )  # fmt: skip
    yield _both(
        "zipf", "base", ", 90 % repeats", 32, CACHED, UNCACHED,
        judges=[partial(at_least, 6, CACHED.name, UNCACHED.name)],
        universe=[256, 64], seconds=8, repeat=0.9,
    )  # fmt: skip
    crowd = _part("text", ", 500 clients", (AS_IT_COMES,), 500, seconds=60)
    nobody = partial(loses_nobody, AS_IT_COMES.name, crowd.name)
    yield Scenario("crowd", "demo", (crowd,), (nobody,))
    rates = (50, 100, 200, 400, 800)
    offered = _part("text", ", offered", (SIGLIT, LITSERVE), rates=rates, seconds=8)
    yield Scenario("rates", "demo", (offered,))
    rivals, single = (THREADED, RIVALS[1]), {"rates": (2,), "seconds": 30, "warmup": 4}
    calm = _part("text", ", no flood", (CLASSES, *rivals), **single)
    beside = _part("text", ", flood", (CLASSES, *rivals), flood=8, **single)
    judge = partial(shields, 1.5, calm.name, beside.name, rivals)
    yield Scenario("classes", "base", (calm, beside), (judge,))
    yield _gpu("text", (1, 32, 256))
    yield _gpu("image", (1, 32, 64))
    hits = _part("text", ", hits", (ONE, TWO), 64, seconds=8, repeat=1.0)
    faster = partial(at_least, 0, TWO.name, ONE.name, hits.name)
    yield Scenario(
        "scale-out", "demo", (hits,), (faster, partial(shares_hits, TWO.name, hits.name))
    )


SCENARIOS = {one.name: one for one in _scenarios()}
