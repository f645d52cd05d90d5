"""A short load on a server of one's own: "and with these settings?", asked in one line.

    trial({"text_workers": 2, "threads": 1}, concurrency=[1, 8], duration=seconds(3))

Names are those of the command lines of `litapi serve` and `bench.load`, with `_` for `-`. These
are looks, not results: nothing is repeated and nothing else is compared in the same minute.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.load.__main__ import Load, parser
from bench.load.recording import Recording
from bench.load.summary import Summary
from bench.rig.server_process import ServerProcess

QUICK = "NOTEBOOK_QUICK"
MOMENT = 0.5

Options = Mapping[str, Any]


def quick() -> bool:
    """Whether a test only wants to see the notebooks run."""
    return bool(os.environ.get(QUICK))


def seconds(full: float) -> float:
    """How long to measure: so long, or a moment where `quick`."""
    return min(full, MOMENT) if quick() else full


def count(full: int, few: int) -> int:
    """How many of something to take: so many, or a few where `quick`."""
    return few if quick() else full


def serving(settings: Options | None = None) -> ServerProcess:
    """A server on a free port, not yet started; it ends with this process at the latest."""
    return ServerProcess(*flags(settings or {}))


def trial(settings: Options | None = None, **load: Any) -> Recording:
    """Start a server, put it under load, end it."""
    with serving(settings) as server:
        return under_load(server.url, **load)


def under_load(url: str, **options: Any) -> Recording:
    """What `python -m bench.load` records with these options.

    Raises:
        KeyboardInterrupt: cut off.
        UsageError, WorkloadError, FleetError: as there.
    """
    return recorded(loading(url, **options))


def loading(url: str, **options: Any) -> Load:
    """A load that is ready to run; the times in its recording count from now."""
    return Load(parser().parse_args(["--url", url, "--quiet", *flags(options)]))


def recorded(load: Load) -> Recording:
    """Run it. Raises as `under_load`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.jsonl"
        if load.record(path):
            raise KeyboardInterrupt
        return Recording.read(path)


def summaries(recording: Recording) -> list[Summary]:
    """Its levels in numbers."""
    return [Summary.of(stage) for stage in recording.measured if stage.samples]


def flags(options: Options) -> list[str]:
    """`{"text_workers": 2}` → `["--text-workers", "2"]`; True is a flag alone, False none."""
    found: list[str] = []
    for name, value in options.items():
        if value is False:
            continue
        found.append(f"--{name.replace('_', '-')}")
        if value is not True:
            found.append(_text(value))
    return found


def _text(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(str, value))
    return str(value)
