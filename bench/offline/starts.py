"""How long a server takes to be ready, and what a second image worker costs in memory.

    python -m bench.offline.starts                                     # base, random weights
    python -m bench.offline.starts --model demo --rounds 1 --seconds 0.5

Each round starts three servers with default options: one with an empty cache folder, one with what
that kept, and one with two image workers. No compiler is on their PATH. A start takes until /readyz
answers 200. Memory is read once the workers have computed pictures for `--seconds`: resident, and
proportional, where a page that several processes map is shared out among them. Exit code 0: all
targets were met; 1: not; 2: the run failed.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx
import psutil

from bench.load.workload import drawings
from bench.offline.__main__ import opened
from bench.rig.command import Figures, Target, concluded, failing, measuring, ratio, tabled
from bench.rig.server_process import ServerProcess, family
from litapi.checkpoint import CheckpointError
from litapi.client import Client

MB = 1e6
READY_WITHIN = 600.0
PICTURES = 16  # of one request, so that every worker gets some
FIRST, SECOND = "first start, s", "second start, s"
ONE, TWO = "one image worker", "two image workers"


def measure(flags: Sequence[str], home: Path, seconds: float, figures: Figures) -> str:
    """A round in an empty folder; the precision that was served.

    Raises RuntimeError where a server does not start.
    """
    path = _without_compiler(home)

    def server(*more: str) -> ServerProcess:
        kept = ("--compile-cache", str(home / "cache"))
        return ServerProcess(*flags, *kept, *more, ready_within=READY_WITHIN, PATH=path)

    with _timed(server(), figures[FIRST]):
        pass
    with _timed(server(), figures[SECOND]) as one:
        _hold(one, seconds, figures, ONE)
        info = httpx.get(f"{one.url}/info").json()
    with server("--image-workers", "2") as two:
        _hold(two, seconds, figures, TWO)
    return str(info["workers"][0]["precision"])


def _without_compiler(home: Path) -> str:
    """A PATH with all that a server runs."""
    (home / "bin").mkdir()
    if found := shutil.which("redis-server"):
        (home / "bin" / "redis-server").symlink_to(found)
    return str(home / "bin")


@contextmanager
def _timed(server: ServerProcess, took: list[float]) -> Iterator[ServerProcess]:
    began = time.monotonic()
    with server:
        took.append(time.monotonic() - began)
        yield server


def _hold(server: ServerProcess, seconds: float, figures: Figures, name: str) -> None:
    ends, asked = time.monotonic() + seconds, 0
    with Client(server.url) as client:
        while time.monotonic() < ends or not asked:
            client.embed_images(drawings(asked, PICTURES))  # the cache knows none of them
            asked += 1
    held = [psutil.Process(pid).memory_full_info() for pid in family(server.pid) if _images(pid)]
    figures[f"{name}, resident MB"].append(sum(one.rss for one in held) / MB)
    figures[f"{name}, proportional MB"].append(sum(one.pss for one in held) / MB)


def _images(pid: int) -> bool:
    """Whether a process is an image worker: it has mapped the tower's weights."""
    try:
        return "/models/image-" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:  # it has ended since
        return False


def judged(figures: Figures) -> list[Target]:
    """What is wanted of base size."""
    one, two = (figures[f"{name}, proportional MB"] for name in (ONE, TWO))
    return [
        Target(FIRST, median(figures[FIRST]), at_most=20.0),
        Target(SECOND, median(figures[SECOND]), at_most=4.0),
        Target("two image workers ÷ one, proportional memory", ratio(two, one), at_most=1.3),
    ]


@failing(CheckpointError, RuntimeError)
def main(arguments: Sequence[str] | None = None) -> int:
    parser = measuring(
        "bench.offline.starts", __doc__, 3, 5.0, "of computing before memory is read"
    )
    parser.add_argument("--model", default="base", help="base, demo, a size, a folder, a name")
    parser.add_argument("--precision", default="auto", help="of both towers")
    options = parser.parse_args(arguments)
    figures = Figures(list)
    with opened(options.model) as checkpoint:
        flags = ("--model", str(checkpoint.folder), "--precision", options.precision)
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory() as home:
                precision = measure(flags, Path(home), options.seconds, figures)
    rows, fields = tabled(figures, ".1f")
    fields |= {"model": checkpoint.name, "precision": precision}
    return concluded("starts", options, rows, judged(figures), fields, measured_on="cpu")


if __name__ == "__main__":
    sys.exit(main())
