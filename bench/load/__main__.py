"""Load for an embedding server, and the table of what it did.

    python -m bench.load --url http://localhost:8080 --concurrency 10 --requests 100
    python -m bench.load --target mixed --concurrency 10,50,200 --duration 20 --out run.jsonl
    python -m bench.load --rate 50,100,200 --arrivals poisson --duration 30
    python -m bench.load --repeat 0.9 --route raw          # nine of ten items from a warm cache

The table and, as the last line, the whole run as one JSON object go to stdout; everything else to
stderr. Exit code 0: every level passed; 1: one failed (any error but 429; see --allow-errors); 2:
asked for something impossible; 130: cut off by Ctrl-C, with what was measured marked as partial.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bench.load.connection import Address
from bench.load.generator import Fleet, FleetError, Interrupt, Order
from bench.load.level import WARMUP, Level
from bench.load.recording import Recorder, Recording
from bench.load.route import Route
from bench.load.summary import Report
from bench.load.workload import SEEDS, Repeats, Workload, WorkloadError, folder
from bench.rig.command import described, listed, positive
from bench.rig.machine import Machine, cores
from litapi.process import raise_limit

CUT_OFF = 130


class UsageError(Exception):
    """Options that do not go together."""


class Load:
    """A run: warm-up, then level after level, into a recording."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._levels = levels(options)
        self._route = _route(options)
        self._workload = _workload(options)
        self._origin = time.monotonic()

    def record(self, path: Path) -> bool:
        """Run it; whether Ctrl-C cut it off. What was recorded stays, whatever happens."""
        with path.open("wb") as file, Interrupt() as interrupt:
            recorder = Recorder(file)
            recorder.run(self._fields())
            done = False
            try:
                if self._warm(recorder, interrupt, path):
                    for level in self._levels:
                        self._run(level, recorder, interrupt)
                        if interrupt.asked:
                            break
                    done = not interrupt.asked
            finally:
                recorder.end(partial=not done)
            return interrupt.asked

    def _warm(self, recorder: Recorder, interrupt: Interrupt, path: Path) -> bool:
        """Whether the run may go on: something was answered."""
        level = self._warmup()
        if not level.requests:
            return True
        self._run(level, recorder, interrupt)
        stage = Recording.read(path).warmup
        answered = stage is not None and any(sample.good for sample in stage.samples)
        return answered and not interrupt.asked

    def _run(self, level: Level, recorder: Recorder, interrupt: Interrupt) -> None:
        order = Order(
            route=self._route,
            workload=self._workload,
            level=level,
            origin=self._origin,
            timeout=self._options.timeout,
            prime=self._primed,
            unit=not self._options.any_length,
        )
        processes = level.processes(self._options.processes, cores())
        name = "warm-up" if level.number == WARMUP else f"level {level.name}"
        total, quiet = level.requests or None, self._options.quiet
        with tqdm(total=total, desc=name, unit=" requests", disable=quiet) as bar:
            Fleet(recorder, interrupt, bar.update).run(order, processes)

    @property
    def _primed(self) -> bool:
        return self._workload.repeats.share > 0 and not self._options.cold

    def _warmup(self) -> Level:
        requests = self._workload.primers if self._primed else self._options.warmup
        return Level(WARMUP, concurrency=min(8, max(1, requests)), requests=requests)

    def _fields(self) -> dict[str, Any]:
        """The options that bear on the result. No address: it may hold a host's name."""
        hidden = {"url", "key", "header", "images", "out", "quiet", "rate", "concurrency"}
        shown = {k: v for k, v in vars(self._options).items() if k not in hidden}
        return {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            **shown,
            "seed": self._workload.seed,
            "images": "folder" if self._options.images else "drawn",
            "machine": asdict(Machine.read()),
        }


def levels(options: argparse.Namespace) -> list[Level]:
    """The levels that the options ask for.

    Raises:
        UsageError: they contradict each other.
    """
    if options.rate and options.concurrency:
        raise UsageError("--rate (open loop) and --concurrency (closed loop) exclude each other")
    requests, duration = options.requests or 0, options.duration or 0.0
    bounded = bool(requests or duration)
    if options.rate:
        how = (options.arrivals, requests, duration if bounded else 10.0, options.connections)
        return [Level(i, 0, rate, *how) for i, rate in enumerate(options.rate, 1)]
    return [
        Level(i, many, requests=requests if bounded else max(100, 10 * many), duration=duration)
        for i, many in enumerate(options.concurrency or [10], 1)
    ]


def _route(options: argparse.Namespace) -> Route:
    try:
        address = Address.of(options.url)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return Route(
        address, options.route, options.text_path, options.image_path,
        options.model, options.key, tuple(options.header),
    )  # fmt: skip


def _workload(options: argparse.Namespace) -> Workload:
    seed = random.SystemRandom().randrange(SEEDS) if options.seed is None else options.seed
    repeats = Repeats(options.repeat, options.universe, options.zipf)
    pictures = folder(options.images) if options.images else None
    return Workload(options.target, options.batch, seed, repeats, pictures)


def _natural(text: str) -> int:
    if int(text) < 0:
        raise ValueError
    return int(text)


def _share(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise ValueError
    return float(text)


def parser() -> argparse.ArgumentParser:
    made = described("bench.load", __doc__)
    made.allow_abbrev = False
    for flags, settings in _flags():
        made.add_argument(*flags, **settings)
    return made


def _flags() -> Iterator[tuple[list[str], dict[str, Any]]]:
    def flag(name: str, text: str, **settings: Any) -> tuple[list[str], dict[str, Any]]:
        shown = settings.get("default")
        text += f" (default: {shown})" if shown not in (None, False, []) else ""
        return [name], {"help": text.replace("%", "%%"), **settings}

    count, amount, natural = positive(int), positive(float), _natural
    yield flag("--url", "where the server listens", default="http://localhost:8080")
    # how much
    yield flag("--concurrency", "closed loop: requests in flight; a list is that many levels",
               type=listed(count), metavar="N[,N…]")  # fmt: skip
    yield flag("--rate", "open loop: requests a second; a list is that many levels",
               type=listed(amount), metavar="R[,R…]")  # fmt: skip
    yield flag("--arrivals", "of an open loop", choices=("constant", "poisson"), default="constant")
    yield flag("--connections", "most connections of an open loop", type=count, default=2048)
    yield flag("--requests", "requests of each level; default: 10 for each in flight, 100 or more",
               type=count, metavar="N")  # fmt: skip
    yield flag("--duration", "seconds of each level; an open loop's default: 10", type=amount)
    yield flag("--warmup", "requests before the first level, not counted", type=natural, default=10)
    yield flag("--processes", "generator processes; 0: as the level needs", type=natural, default=0)
    yield flag("--timeout", "seconds until a request is given up", type=amount, default=30.0)
    # of what
    yield flag("--target", "what is embedded", choices=("text", "image", "mixed"), default="text")
    yield flag("--batch", "items in a request", type=count, default=1)
    yield flag("--images", "folder of JPEGs and PNGs, in place of drawings", type=Path)
    yield flag("--seed", "settles every item; default: drawn anew, so that no run meets the cache "
               "of the run before", type=natural)  # fmt: skip
    yield flag("--repeat", "share of the items that come from a small universe, sent once before "
               "the first level: the hit share to aim at", type=_share, default=0.0)  # fmt: skip
    yield flag("--universe", "items in it", type=count, default=256)
    yield flag("--zipf", "how unequal their popularity is; 0: equal", type=float, default=1.0)
    yield flag("--cold", "do not send the universe before", action="store_true")
    # how
    yield flag("--route", "v1: OpenAI form, base64; embed: /embed_text, /embed_image; raw: rows",
               choices=("v1", "embed", "raw"), default="v1")  # fmt: skip
    yield flag("--text-path", "another path for texts, as for a baseline", metavar="PATH")
    yield flag("--image-path", "another path for images", metavar="PATH")
    yield flag("--model", "model named in the requests, where the server wants one")
    yield flag("--key", "API key, sent as a bearer token")
    yield flag("--header", "one more header, as in 'Cache-Control: no-cache'; may be repeated",
               action="append", default=[], metavar="'NAME: VALUE'")  # fmt: skip
    # judged how
    yield flag("--allow-errors", "percent of errors that do not fail a level",
               type=float, default=0.0, metavar="PCT")  # fmt: skip
    yield flag(
        "--any-length", "do not ask for unit vectors, as for a baseline", action="store_true"
    )
    yield flag("--out", "keep the recording", type=Path, metavar="FILE.jsonl")
    yield flag("--quiet", "no progress bar", action="store_true")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    raise_limit()
    with tempfile.TemporaryDirectory() as scratch:
        path = options.out or Path(scratch) / "run.jsonl"
        try:
            cut_off = Load(options).record(path)
        except (UsageError, WorkloadError, OSError) as error:
            print(f"bench: {error}", file=sys.stderr)
            return 2
        except FleetError as error:
            print(f"bench: {error}", file=sys.stderr)
            cut_off = False
        report = Report.of(Recording.read(path))
    print("\n".join(report.lines()))
    return CUT_OFF if cut_off else int(bool(report.failures))


if __name__ == "__main__":
    sys.exit(main())
