"""What this process may use of the machine, and how its life is tied to others.

Cores: the machine's count is wrong in a container: torch with sixty threads on a share of four
cores is slower than with four. So it is the least of the affinity and the cgroup's quota.

Processor: the bits of a vector depend on it: whether a tower computes in bfloat16 or float32, and
by which kernels. It is read without loading torch.

Descriptors: the soft limit is 1,024 on most systems; idle clients alone use that up, and then the
answers of workers find no descriptor to arrive in. The hard limit is not taken as it is: some
containers have a billion, and a program that walks over all of them stands still.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import math
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
# Turns in which an idle thread of torch watches for work before it sleeps. Several processes have
# threads for all cores; with libgomp's own number they would watch each other's work, not do it.
SPINS = "2000"


def cores(cgroup: Path = CGROUP) -> int:
    """Cores of this process, at least 1."""
    allowed = len(os.sched_getaffinity(0))
    quota = _quota(cgroup)
    return max(1, min(allowed, math.ceil(quota)) if quota else allowed)


def sleep_soon() -> None:
    """Let idle threads of torch sleep soon, here and in children, where torch is not loaded yet."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def _quota(cgroup: Path) -> float:
    """Cores' worth of time by cgroup version 2, else version 1; 0: no limit."""
    limit, period = [*_words(cgroup / "cpu.max"), "", ""][:2]
    if not limit:
        limit, period = (
            "".join(_words(cgroup / "cpu" / f"cpu.cfs_{name}_us")) for name in ("quota", "period")
        )
    if not (limit.isdecimal() and period.isdecimal()):  # "max", "-1", or nothing to read
        return 0.0
    return int(limit) / max(1, int(period))


def keeps_order(cgroup: Path = CGROUP) -> bool:
    """Whether the kernel can put one process before another here. Under a quota that is less than
    the cores it cannot: idle cores take the work of both, and both use the quota up."""
    quota = _quota(cgroup)
    return (not quota or quota >= len(os.sched_getaffinity(0))) and _may_give_way()


def _may_give_way() -> bool:
    """Tried in a thread that ends: there is no way back. Some sandboxes forbid it."""
    with ThreadPoolExecutor(1) as aside:
        return aside.submit(_give_way, 0).exception() is None


def give_way() -> None:
    """Run this process from now on only when no other wants the core; also threads to come."""
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):
            _give_way(int(thread))


def _give_way(thread: int) -> None:
    os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def version(package: str) -> str:
    """Of an installed package, without loading it; empty where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


CPUINFO = Path("/proc/cpuinfo")
_CARDS = re.compile(r"^GPU \d+: (.*?)(?: \(UUID: .*)?$", re.MULTILINE).findall
DECISIVE = frozenset(
    {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8"}
    | {"asimddp", "bf16", "i8mm", "sve"}
)


def processor(device: str, cpuinfo: Path = CPUINFO) -> list[str]:
    """The instructions of this CPU that matter, or the names of the cards that are here."""
    if device != "cpu":
        return sorted(set(cards()))
    said = _first_core(cpuinfo)
    words = said.get("flags") or said.get("Features") or ""  # as Intel and AMD say, and as ARM does
    return sorted(DECISIVE & set(words.split()))


def cards() -> list[str]:
    """The name of each card, as the driver's tool lists them."""
    try:
        told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
    return _CARDS(told.stdout)


def core_kind(cpuinfo: Path = CPUINFO) -> str:
    """Maker and model of the cores, in numbers: the same for all speeds and sizes of one design."""
    said = _first_core(cpuinfo)
    x86 = ("vendor_id", "cpu family", "model")
    names = x86 if x86[0] in said else ("CPU implementer", "CPU part")
    return "-".join(said.get(name, "") for name in names)


def _first_core(cpuinfo: Path) -> dict[str, str]:
    try:
        lines = cpuinfo.read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): words.strip() for name, _, words in pairs}


ENOUGH = 1 << 16


def raise_limit() -> int:
    """Raise the soft limit for this process and its children, as far as it may; the new one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


_PR_SET_PDEATHSIG = 1


def die_with_parent(how: int = signal.SIGKILL) -> None:
    """Ask the kernel to send `how` to this process when the thread that started it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, how, 0, 0, 0)
        parent = multiprocessing.parent_process()
        if parent is not None and os.getppid() != parent.pid:  # it ended before the tie was made
            os.kill(os.getpid(), how)
