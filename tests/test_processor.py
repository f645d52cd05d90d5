"""What of a machine decides over bits: words from /proc/cpuinfo, or the names of cards."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from litapi.processor import processor

INTEL = "processor\t: 0\nflags\t\t: fpu sse avx2 avx512f avx512_vnni amx_bf16\n\nprocessor\t: 1\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp bf16 i8mm\n"


def read(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    return processor("cpu", file)


def test_only_decisive_instructions_are_named(tmp_path: Path) -> None:
    """In an order of their own, whatever the kernel's is."""
    assert read(tmp_path, INTEL) == ["amx_bf16", "avx2", "avx512_vnni", "avx512f"]
    assert read(tmp_path, ARM) == ["asimddp", "bf16", "i8mm"]


def test_a_machine_that_says_nothing_has_no_words(tmp_path: Path) -> None:
    """Then all that say nothing are one kind of machine."""
    assert read(tmp_path, "") == []
    assert processor("cpu", tmp_path / "none") == []


def test_cards_are_named_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight of a kind compute alike."""

    def listed(*_: Any, **__: Any) -> Any:
        return subprocess.CompletedProcess([], 0, stdout="NVIDIA H200\nNVIDIA H200\nNVIDIA L4\n")

    monkeypatch.setattr(subprocess, "run", listed)
    assert processor("cuda") == ["NVIDIA H200", "NVIDIA L4"]


def test_a_driver_that_is_not_there_names_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container without nvidia-smi."""

    def missing(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", missing)
    assert processor("cuda") == []
