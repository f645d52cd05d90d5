"""What a machine computes with, in words, without loading torch.

The bits of a vector in eight or sixteen of them depend on it: whether int8 has eight bits or seven,
whether the rest is bfloat16 or float32, which kernels a card has.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
NAMES = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
DECISIVE = frozenset(
    {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8"}
    | {"asimddp", "bf16", "i8mm", "sve"}
)


def processor(device: str, cpuinfo: Path = CPUINFO) -> list[str]:
    """The instructions of this CPU that matter, or the names of the cards that are here."""
    if device == "cpu":
        return _instructions(cpuinfo)
    try:
        told = subprocess.run(NAMES, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return sorted(set(told.stdout.split("\n")) - {""})


def _instructions(cpuinfo: Path) -> list[str]:
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        name, _, words = line.partition(":")
        if name.strip() in ("flags", "Features"):  # as Intel and AMD say, and as ARM does
            return sorted(DECISIVE & set(words.split()))
    return []
