"""What this process may use of the machine, and how it ends with its parent."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from litapi.process import (
    ENOUGH,
    cores,
    die_with_parent,
    keeps_order,
    processor,
    raise_limit,
)
from tests.support.python import ran


@pytest.fixture(autouse=True)
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """An affinity of eight cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def second(folder: Path, text: str) -> Path:
    """A cgroup of version 2 with that limit."""
    (folder / "cpu.max").write_text(text)
    return folder


def first(folder: Path, quota: str, period: str) -> Path:
    """A cgroup of version 1 with that limit."""
    (folder / "cpu").mkdir()
    (folder / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (folder / "cpu" / "cpu.cfs_period_us").write_text(period)
    return folder


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        *(("max 100000\n", 8), ("200000 100000\n", 2), ("250000 100000\n", 3)),
        *(("50000 100000\n", 1), ("1600000 100000\n", 8), ("0 100000\n", 8), ("", 8)),
        *(("200000", 8), ("a b c", 8)),
    ],
)
def test_a_quota_of_the_second_cgroup_bounds_the_cores(
    tmp_path: Path, limit: str, expected: int
) -> None:
    """Rounded up, never above the affinity, never below one; what cannot be read is no limit."""
    assert cores(tmp_path / "none") == 8
    assert cores(second(tmp_path, limit)) == expected


@pytest.mark.parametrize(
    ("limit", "kept"),
    [("max 100000\n", True), ("800000 100000\n", True), ("750000 100000\n", False)],
)
def test_the_kernel_keeps_an_order_where_no_quota_is_below_the_cores(
    tmp_path: Path, limit: str, kept: bool
) -> None:
    """With 7.5 of 8 cores' worth of time, what idle cores do is taken from the others."""
    assert keeps_order(second(tmp_path, limit)) is kept


def test_the_kernel_keeps_no_order_where_a_process_may_not_give_way(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A sandbox may forbid it; then bulk has no workers of its own, rather than some that fail."""

    def forbidden(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", forbidden)
    assert not keeps_order(tmp_path)


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [("-1\n", "100000\n", 8), ("400000\n", "100000\n", 4), ("1\n", "100000\n", 1), ("x", "y", 8)],
)
def test_a_quota_of_the_first_cgroup_bounds_the_cores(
    tmp_path: Path, quota: str, period: str, expected: int
) -> None:
    """Older machines keep it in two files; -1 means none."""
    assert cores(first(tmp_path, quota, period)) == expected


def test_this_machine_has_at_least_one_and_no_more_than_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The real files of wherever this runs."""
    monkeypatch.undo()
    assert 1 <= cores() <= (os.cpu_count() or 1)


INTEL = "processor\t: 0\nflags\t\t: fpu sse avx2 avx512f avx512_vnni amx_bf16\n\nprocessor\t: 1\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp bf16 i8mm\n"


def read(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    return processor("cpu", file)


def test_only_decisive_instructions_are_named(tmp_path: Path) -> None:
    """In an order of their own; machines that say nothing are one kind."""
    assert read(tmp_path, "") == processor("cpu", tmp_path / "none") == []
    assert read(tmp_path, INTEL) == ["amx_bf16", "avx2", "avx512_vnni", "avx512f"]
    assert read(tmp_path, ARM) == ["asimddp", "bf16", "i8mm"]


def test_cards_are_named_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight of a kind compute alike; in a container there may be no driver to ask."""

    def missing(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", missing)
    assert processor("cuda") == []

    def listed(*_: Any, **__: Any) -> Any:
        names = ["NVIDIA H200", "NVIDIA H200", "NVIDIA L4"]
        lines = [f"GPU {n}: {name} (UUID: GPU-{n})\n" for n, name in enumerate(names)]
        return subprocess.CompletedProcess([], 0, stdout="".join(lines))

    monkeypatch.setattr(subprocess, "run", listed)
    assert processor("cuda") == ["NVIDIA H200", "NVIDIA L4"]


LOW = """
import resource
from litapi.process import raise_limit
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, min(hard, 4096) if hard > 0 else 4096))
print(raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    """1,024 are used up by idle clients; the hard limit is the administrator's word."""
    said = ran(LOW).stdout
    assert said.split() == ["4096", "4096", "4096"]


def test_a_limit_that_is_high_already_is_left_alone() -> None:
    """Nothing is ever lowered, and there is no walk over a billion descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    raised = raise_limit()
    assert raised >= soft
    assert raised == soft or raised == min(hard, ENOUGH) or hard == resource.RLIM_INFINITY
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] == hard


ROOT = Path(__file__).parent.parent
LONG = 120.0  # a child that does not follow its parent lives for this long

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part is Linux's")


def say(word: str) -> None:
    """One word to the test."""
    os.write(1, word.encode() + b"\n")


def tied(how: int = signal.SIGKILL) -> None:
    """A child that is tied to its parent and waits."""
    die_with_parent(how)
    say("ready")
    time.sleep(LONG)
    say("survived")


def asked_to_end() -> None:
    """A child that is asked to end instead of killed, and says so."""

    def heard(number: int, frame: object) -> None:
        say("asked")
        os._exit(0)

    signal.signal(signal.SIGTERM, heard)
    tied(signal.SIGTERM)


def born_late() -> None:
    """A child that comes to tie itself when its parent is already gone."""
    parent = os.getppid()
    say("ready")
    while os.getppid() == parent:
        time.sleep(0.005)
    die_with_parent()
    say("survived")


def family(child: str) -> None:
    """The parent: it starts the child as LitServe starts workers, and waits to be killed."""
    process = multiprocessing.get_context("spawn").Process(target=globals()[child])
    process.start()
    time.sleep(LONG)


def interrupted() -> None:
    """Ctrl-C reaches the whole process group; a tied child leaves it to the parent."""
    die_with_parent()
    os.kill(os.getpid(), signal.SIGINT)
    say("survived")


def on_another_system() -> None:
    """Where there is no such promise of the kernel's."""
    sys.platform = "darwin"
    die_with_parent()
    say("survived")


def start(call: str) -> subprocess.Popen[bytes]:
    """Run a call of a function of this file in a Python of its own."""
    command = [sys.executable, "-c", f"from tests.test_process import *; {call}"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


def last_words(child: str) -> list[str]:
    """Kill the parent once the child is ready; what the child said until it ended."""
    with start(f"family({child!r})") as parent:
        assert parent.stdout is not None
        first = parent.stdout.readline().decode().strip()
        parent.send_signal(signal.SIGKILL)
        rest, _ = parent.communicate(timeout=LONG / 2)
        return [first, *rest.decode().split()]


def test_a_child_is_killed_with_its_parent() -> None:
    """kill -9 of the server leaves no worker behind."""
    assert last_words("tied") == ["ready"]


def test_a_child_may_be_asked_instead_of_killed() -> None:
    """The signal is the child's choice, so one with something to finish can finish it."""
    assert last_words("asked_to_end") == ["ready", "asked"]


def test_a_child_whose_parent_has_already_ended_ends_at_once() -> None:
    """Between the start of a worker and its promise lie seconds of imports."""
    assert last_words("born_late") == ["ready"]


@pytest.mark.parametrize("call", ["interrupted()", "on_another_system()"])
def test_a_tied_child_leaves_an_interrupt_to_its_parent(call: str) -> None:
    """Ctrl-C drains the server; where there is no such call, it starts all the same."""
    with start(call) as child:
        assert child.communicate(timeout=LONG / 2)[0] == b"survived\n"
    assert child.returncode == 0
