"""The server beside the bare tower: image workers that share the card, and texts."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict

from bench.compare.baselines.system import System
from bench.compare.contestant import Contestant, Failed, Turn, over_http, towers
from bench.compare.point import Point
from bench.compare.scenario import READY, Part
from bench.compare.siglit import PATIENT, siglit
from bench.gpu.step import Task
from bench.load.summary import rounded
from bench.load.workload import Kind

SHOWN = ("items_per_s", "latency_ms", "errors_pct", "busy_pct", "server_ms", "generator")
NEEDED = 30.0  # seconds for a server to load and be measured


def images(task: Task) -> None:
    """One worker, two, four, each server asked at the same levels."""
    sizes = task.sizes
    part = _part(task, "image", 1, sizes.image_levels)
    _take(task, towers(READY), part)
    for many in sizes.workers:
        _serve(task, f"{many} image", [part], "--image-workers", str(many))


def texts(task: Task) -> None:
    """A text a request, then several, of one server."""
    sizes = task.sizes
    single = _part(task, "text", 1, sizes.text_levels)
    _take(task, towers(READY), single)
    _serve(task, "1 text", [single, _part(task, "text", sizes.items, sizes.full_levels)])


def _part(task: Task, kind: Kind, items: int, levels: tuple[int, ...]) -> Part:
    sizes = task.sizes
    return Part(
        kind,
        kind,
        levels=levels,
        items=items,
        seconds=sizes.served_seconds,
        warmup=2 * max(levels),
        bare=(sizes.bare[kind == "text"],),
        bare_seconds=sizes.served_seconds / 2,
    )


def _serve(task: Task, name: str, parts: list[Part], *flags: str) -> None:
    """All parts of one server; one for which time is short is left out."""
    if task.left < NEEDED:
        task.fault(f"{name}: left out, {task.left:.0f} s were left")
        return
    system = siglit(name, "--cache", "off", *PATIENT, *flags, cores="own")
    try:
        with system.start(task.ground) as served:
            up = System(name, lambda _: nullcontext(served))  # no part starts or stops it
            for part in parts:
                _take(task, over_http(up), part)
    except RuntimeError as reason:
        task.fault(f"{name}: {str(reason)[-400:]}")


def _take(task: Task, one: Contestant, part: Part) -> None:
    def note(point: Point) -> None:
        summary = asdict(point.summary)
        names = {"system": one.name, "items": point.items, "level": point.level}
        figures = {"cpu_ms_per_item": point.cpu_ms, **{name: summary[name] for name in SHOWN}}
        task.add("points", rounded(names | figures))

    def fail(reason: object) -> None:
        task.fault(f"{one.name}: {reason}")

    try:
        one.take(Turn("gpu", part, 0, 0, task.ground, note, fail))
    except Failed as reason:
        fail(reason)
