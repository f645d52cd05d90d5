"""What this process may use of the machine, and how it ends with its parent."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from bench.rig.server_process import ROOT
from litapi.process import ENOUGH, cores, die_with_parent, keeps_order, processor, raise_limit
from tests.support.command import python

LONG = 120.0  # a child that does not follow its parent lives for this long

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part is Linux's")


@pytest.fixture(autouse=True)
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """An affinity of eight cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


# the files of a cgroup of either version, what stands in them, and the cores that are left of eight
QUOTAS = [
    *((("cpu.max",), (said,), left) for said, left in [
        ("max 100000\n", 8), ("200000 100000\n", 2), ("250000 100000\n", 3), ("50000 100000\n", 1),
        ("1600000 100000\n", 8), ("0 100000\n", 8), ("", 8), ("200000", 8), ("a b c", 8),
    ]),
    *((("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"), said, left) for said, left in [
        (("-1\n", "100000\n"), 8), (("400000\n", "100000\n"), 4), (("1\n", "100000\n"), 1),
        (("x", "y"), 8),
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("files", "said", "left"), QUOTAS)
def test_a_quota_of_a_cgroup_bounds_the_cores(
    tmp_path: Path, files: tuple[str, ...], said: tuple[str, ...], left: int
) -> None:
    """Rounded up, never above the affinity, never below one; what cannot be read is no limit."""
    (tmp_path / "cpu").mkdir()
    for file, text in zip(files, said, strict=True):
        (tmp_path / file).write_text(text)
    assert cores(tmp_path) == left
    assert cores(tmp_path / "none") == 8


@pytest.mark.parametrize(
    ("limit", "may", "kept"),
    [("max", True, True), ("800000", True, True), ("750000", True, False), ("max", False, False)],
)
def test_the_kernel_keeps_an_order_without_a_small_quota(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str, may: bool, kept: bool
) -> None:
    """With 7.5 of 8 cores' worth of time, what idle cores do is taken from the others. A sandbox
    may forbid to give way: then bulk has no workers of its own, rather than some that fail."""
    (tmp_path / "cpu.max").write_text(f"{limit} 100000\n")
    if not may:
        monkeypatch.setattr(os, "sched_setscheduler", Mock(side_effect=PermissionError))
    assert keeps_order(tmp_path) is kept


def test_this_machine_has_one_to_all_of_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real files of wherever this runs."""
    monkeypatch.undo()
    assert 1 <= cores() <= (os.cpu_count() or 1)


INTEL = "processor\t: 0\nflags\t\t: fpu sse avx2 avx512f avx512_vnni amx_bf16\n\nprocessor\t: 1\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp bf16 i8mm\n"


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ("", []),
        (INTEL, ["amx_bf16", "avx2", "avx512_vnni", "avx512f"]),
        (ARM, ["asimddp", "bf16", "i8mm"]),
    ],
)
def test_only_decisive_instructions_are_named(tmp_path: Path, said: str, named: list[str]) -> None:
    """In an order of their own; machines that say nothing are one kind."""
    (tmp_path / "cpuinfo").write_text(said)
    assert processor("cpu", tmp_path / "cpuinfo") == named
    assert processor("cpu", tmp_path / "none") == []


def test_cards_are_named_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight of a kind compute alike; in a container there may be no driver to ask."""

    names = ["NVIDIA H200", "NVIDIA H200", "NVIDIA L4"]
    lines = [f"GPU {n}: {name} (UUID: GPU-{n})\n" for n, name in enumerate(names)]
    cards = subprocess.CompletedProcess([], 0, stdout="".join(lines))
    driver = Mock(side_effect=[FileNotFoundError, cards])
    monkeypatch.setattr(subprocess, "run", driver)
    assert processor("cuda") == []
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
    assert python(LOW).stdout.split() == ["4096", "4096", "4096"]


def test_a_limit_that_is_high_already_is_left_alone() -> None:
    """Nothing is ever lowered, and there is no walk over a billion descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    raised = raise_limit()
    assert raised >= soft
    assert raised == soft or raised == min(hard, ENOUGH) or hard == resource.RLIM_INFINITY
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] == hard


def say(word: str) -> None:
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


def last_words(child: str) -> list[str]:
    """Kill a child's parent once the child is ready; what the child said until it ended."""
    command = [sys.executable, "-c", f"from tests.test_process import *; family({child!r})"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        first = parent.stdout.readline()
        parent.send_signal(signal.SIGKILL)
        rest, _ = parent.communicate(timeout=LONG / 2)
        return [*first.split(), *rest.split()]


@pytest.mark.parametrize(
    ("child", "words"),
    [("tied", ["ready"]), ("asked_to_end", ["ready", "asked"]), ("born_late", ["ready"])],
)
def test_a_child_ends_with_its_parent(child: str, words: list[str]) -> None:
    """kill -9 of the server leaves no worker behind. One with something to finish may choose to be
    asked; between the start of a worker and its promise lie seconds of imports."""
    assert last_words(child) == words


@pytest.mark.parametrize("call", ["interrupted()", "on_another_system()"])
def test_a_tied_child_leaves_an_interrupt_to_its_parent(call: str) -> None:
    """Ctrl-C drains the server; where there is no such call, it starts all the same."""
    assert python(f"from tests.test_process import *; {call}").stdout == "survived\n"
