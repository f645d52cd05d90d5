"""The cores that a process really has, not those of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from litapi.cores import cores


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
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("250000 100000\n", 3),
        ("50000 100000\n", 1),
        ("1600000 100000\n", 8),
        ("0 100000\n", 8),
        ("", 8),
        ("200000", 8),
        ("a b c", 8),
    ],
)
def test_a_quota_of_the_second_cgroup_bounds_the_cores(
    tmp_path: Path, limit: str, expected: int
) -> None:
    """Rounded up, never above the affinity, never below one; what cannot be read is no limit."""
    assert cores(second(tmp_path, limit)) == expected


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [("-1\n", "100000\n", 8), ("400000\n", "100000\n", 4), ("1\n", "100000\n", 1), ("x", "y", 8)],
)
def test_a_quota_of_the_first_cgroup_bounds_the_cores(
    tmp_path: Path, quota: str, period: str, expected: int
) -> None:
    """Older machines keep it in two files; -1 means none."""
    assert cores(first(tmp_path, quota, period)) == expected


def test_without_a_cgroup_the_affinity_counts(tmp_path: Path) -> None:
    """`taskset` and `docker --cpuset-cpus` show there, and not in the machine's count."""
    assert cores(tmp_path / "none") == 8


def test_this_machine_has_at_least_one_and_no_more_than_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The real files of wherever this runs."""
    monkeypatch.undo()
    assert 1 <= cores() <= (os.cpu_count() or 1)
