"""The scenarios: what each asks, of whom, and what it was meant to show.

    base-text, base-image  true base size: is siglit at least as good as the best right baseline?
    int8                   true base size: what is left of compiled int8's gain over HTTP?
    precisions             true base size: what bfloat16 and int8 gain on the best baseline
    demo-batch             64 items in a request: what is left of the bare towers' speed?
    demo-single            one item in a request: how many times plain LitServe?
    latency                one item at a time: what does the service add to the towers?
    zipf                   nine of ten items repeat, base size: what does the cache bring?
    crowd                  500 clients for a minute: is anybody lost?
    rates                  an open loop: at which rate does the latency break away?
    gpu-text, gpu-image    so400m-naflex, with `--device cuda:0`: what is a GPU's server worth?
    scale-out              two instances in place of one: what does that bring, do they share?

Inputs never repeat but in zipf and scale-out; elsewhere siglit's cache is off all the same, so that
no look-up is part of the figure. Only crowd runs siglit with all its defaults. A figure is compared
within each round, and the median of the ratios is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Literal

from bench.compare.baselines.catalogue import SYSTEMS
from bench.compare.part import Part
from bench.compare.point import Figure, Missing, Points, latency, throughput
from bench.compare.siglit import PATIENT, Instances, Siglit
from bench.rig.rounds import Target, ratio

Size = Literal["base", "demo", "so400m"]
Judge = Callable[[Points], Iterator[Target]]

SIGLIT = Siglit("siglit", "--cache", "off", *PATIENT)
CACHED = Siglit("siglit-cached", *PATIENT)
UNCACHED = Siglit("siglit-uncached", "--cache", "off", *PATIENT)
SOON = Siglit("siglit", "--cache", "off", *PATIENT, cores="threads")
# The weights are random: their recall means nothing.
_INT8 = ("--precision", "int8", "--accept-loss", "on", "--compile", "on")
INT8 = Siglit("siglit-int8", "--cache", "off", *PATIENT, *_INT8)
BFLOAT16 = Siglit("siglit-bfloat16", "--cache", "off", *PATIENT, "--precision", "bfloat16")
AS_IT_COMES = Siglit("siglit", cores="own")
ONE, TWO = Instances("1-instance", 1), Instances("2-instances", 2)
LITSERVE = SYSTEMS["litserve"]
THREADED = SYSTEMS["gunicorn-threads"]  # of the baselines with right vectors the best, or nearly
BASELINES = tuple(SYSTEMS.values())
BARE = "bare"  # decoded and computed; "bare-ready" is computed only
READY = "bare-ready"
LEVELS = (50, 100, 200, 500)
ON_GPU = (SIGLIT, SYSTEMS["flask-dev"], THREADED, LITSERVE)


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


# -- judges --------------------------------------------------------------------------------------


def at_least(limit: float, part: str, system: str, to: str) -> Judge:
    """The best throughput of a system over another's."""

    def judge(points: Points) -> Iterator[Target]:
        one, other = (points.best(part, name, throughput) for name in (system, to))
        name = f"{part}: items/s of {system} ÷ {to}"
        yield Target(name, ratio(one, other), at_least=limit)

    return judge


def beats(part: str) -> Judge:
    """Throughput and p99 against the best baseline in each, of those whose vectors are right."""

    def judge(points: Points) -> Iterator[Target]:
        names = [one.name for one in BASELINES if one.name in points.systems(part)]
        for level in points.levels(part, SIGLIT.name):
            rivals = points.right(part, level, names)
            name, more = _against(points, part, level, rivals, throughput, max)
            yield Target(f"{part} at {level}: items/s ÷ best baseline ({name})", more, at_least=1)
            name, less = _against(points, part, level, rivals, latency("p99"), min)
            yield Target(f"{part} at {level}: p99 ÷ best baseline ({name})", less, at_most=1)

    return judge


def _against(
    points: Points,
    part: str,
    level: str,
    rivals: list[str],
    figure: Figure,
    best: Callable[[list[float]], float],
) -> tuple[str, float]:
    """The rival that is best by its median, and the median ratio to each round's best."""
    own = [figure(one) for one in points.at(part, SIGLIT.name, level)]
    theirs = {name: [figure(one) for one in points.at(part, name, level)] for name in rivals}
    medians = {name: median(values) for name, values in theirs.items()}
    leader = next(name for name in rivals if medians[name] == best([*medians.values()]))
    rounds = [best(list(values)) for values in zip(*theirs.values(), strict=True)]
    return leader, ratio(own, rounds)


def adds_at_most(limit: float, part: str) -> Judge:
    """Milliseconds between the median of a lone client and that of the bare tower."""

    def judge(points: Points) -> Iterator[Target]:
        served = [latency("p50")(one) for one in points.at(part, SIGLIT.name, "1")]
        bare = [latency("p50")(one) for one in points.at(part, BARE, "batch 1")]
        added = median(one - other for one, other in zip(served, bare, strict=True))
        yield Target(f"{part}: p50 of siglit − bare, ms", added, at_most=limit)

    return judge


def loses_nobody(part: str, system: str) -> Judge:
    """Percent of answers that are neither good nor 429, the worst over rounds and levels."""

    def judge(points: Points) -> Iterator[Target]:
        errors = max(points.best(part, system, lambda one: one.summary.errors_pct))
        yield Target(f"{part}: errors but 429 of {system}, %", errors, at_most=0)

    return judge


def shares_hits(part: str, system: str) -> Judge:
    """Hits in Redis: what one instance computed, the other one served."""

    def judge(points: Points) -> Iterator[Target]:
        rounds = points.best(part, system, lambda one: one.summary.cache.get("hit-l2", 0))
        yield Target(f"{part}: another instance's hits with {system}", min(rounds), at_least=1)

    return judge


# -- the table -----------------------------------------------------------------------------------


def _base(kind: Literal["text", "image"], requests: int, many: int) -> Scenario:
    full = f"{kind}, 32 items"
    single = Part(kind, kind, (SIGLIT, *BASELINES), LEVELS, requests=requests, warmup=4)
    batches = Part(
        full, kind, (SIGLIT,), (2,), items=32, requests=many, warmup=1,
        bare=(1, 2, 8, 32), bare_seconds=10,
    )  # fmt: skip
    judges = (
        beats(kind),
        loses_nobody(kind, SIGLIT.name),
        at_least(0.95, full, SIGLIT.name, BARE),
    )
    return Scenario(f"base-{kind}", "base", (single, batches), judges)


def _int8(kind: Literal["text", "image"], requests: int) -> Part:
    return Part(
        f"{kind}, int8", kind, (SIGLIT, INT8), (2,), items=32, requests=requests, warmup=1,
        bare=(2, 8, 32), bare_seconds=10, precision="int8", compiled=True,
    )  # fmt: skip


def _precisions(kind: Literal["text", "image"], requests: int) -> Part:
    return Part(
        f"{kind}, precisions", kind, (SIGLIT, BFLOAT16, INT8, THREADED), (50,),
        requests=requests, warmup=8, precision="int8",
    )  # fmt: skip


def _batch(kind: Literal["text", "image"], requests: int) -> Part:
    return Part(
        f"{kind}, 64 items", kind, (SIGLIT,), (4,), items=64, requests=requests, warmup=4,
        bare=(8, 64),
    )  # fmt: skip


def _alone(kind: Literal["text", "image"]) -> Part:
    return Part(kind, kind, (SOON,), (1,), requests=300, warmup=30, bare=(1,), bare_seconds=3)


def _single(kind: Literal["text", "image"], requests: int) -> Part:
    return Part(kind, kind, (SIGLIT, LITSERVE), (64,), requests=requests, warmup=64)


def _repeated(kind: Literal["text", "image"], universe: int) -> Part:
    both = (CACHED, UNCACHED)
    name = f"{kind}, 90 % repeats"
    return Part(name, kind, both, (32,), seconds=8, repeat=0.9, universe=universe)


def _gpu(kind: Literal["text", "image"], sizes: tuple[int, ...]) -> Scenario:
    many = f"{kind}, 32 items"
    single = Part(kind, kind, ON_GPU, (64, 500), seconds=5, warmup=32)
    batches = Part(
        many, kind, (SIGLIT,), (16,), items=32, seconds=5, warmup=8, bare=sizes, bare_seconds=2
    )
    judges = (beats(kind), loses_nobody(kind, SIGLIT.name), at_least(0.6, many, SIGLIT.name, BARE))
    return Scenario(f"gpu-{kind}", "so400m", (single, batches), judges)


def _scenarios() -> Iterator[Scenario]:
    yield _base("text", requests=100, many=12)
    yield _base("image", requests=60, many=4)
    yield Scenario(
        "int8",
        "base",
        (_int8("text", 8), _int8("image", 4)),
        tuple(at_least(0.95, f"{kind}, int8", INT8.name, BARE) for kind in ("text", "image")),
    )
    yield Scenario(
        "precisions",
        "base",
        (_precisions("text", 200), _precisions("image", 100)),
        tuple(
            at_least(limit, f"{kind}, precisions", one.name, THREADED.name)
            for kind in ("text", "image")
            for one, limit in ((BFLOAT16, 1.5), (INT8, 2.2))
        ),
    )
    yield Scenario(
        "demo-batch",
        "demo",
        (_batch("text", 200), _batch("image", 24)),
        tuple(at_least(0.6, f"{kind}, 64 items", SIGLIT.name, BARE) for kind in ("text", "image")),
    )
    yield Scenario(
        "demo-single",
        "demo",
        (_single("text", 3000), _single("image", 1000)),
        tuple(at_least(3, kind, SIGLIT.name, LITSERVE.name) for kind in ("text", "image")),
    )
    yield Scenario(
        "latency",
        "demo",
        (_alone("text"), _alone("image")),
        (adds_at_most(1.5, "text"), adds_at_most(1.5, "image")),
    )
    repeated = (_repeated("text", 256), _repeated("image", 64))
    yield Scenario(
        "zipf",
        "base",
        repeated,
        tuple(at_least(6, one.name, CACHED.name, UNCACHED.name) for one in repeated),
    )
    crowd = Part("text, 500 clients", "text", (AS_IT_COMES,), (500,), seconds=60)
    yield Scenario("crowd", "demo", (crowd,), (loses_nobody(crowd.name, AS_IT_COMES.name),))
    offered = Part(
        "text, offered", "text", (SIGLIT, LITSERVE), rates=(50, 100, 200, 400, 800), seconds=8
    )
    yield Scenario("rates", "demo", (offered,))
    yield _gpu("text", (1, 32, 256))
    yield _gpu("image", (1, 32, 64))
    hits = Part("text, hits", "text", (ONE, TWO), (64,), seconds=8, repeat=1.0)
    yield Scenario(
        "scale-out",
        "demo",
        (hits,),
        (at_least(0, hits.name, TWO.name, ONE.name), shares_hits(hits.name, TWO.name)),
    )


SCENARIOS = {one.name: one for one in _scenarios()}
