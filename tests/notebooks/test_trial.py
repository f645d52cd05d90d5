"""Trials: options become flags, and a short load becomes a recording."""

import pytest

from notebooks.figures.trial import (
    MOMENT,
    QUICK,
    count,
    flags,
    seconds,
    serving,
    under_load,
)


def test_options_become_flags() -> None:
    """As the command lines know them."""
    assert flags({"text_workers": 2, "concurrency": (1, 8), "cold": True, "quiet": False}) == [
        "--text-workers", "2", "--concurrency", "1,8", "--cold",
    ]  # fmt: skip


def test_a_test_that_only_looks_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody else gets what was asked for."""
    monkeypatch.delenv(QUICK, raising=False)
    assert (seconds(5), count(200, 48)) == (5, 200)
    monkeypatch.setenv(QUICK, "1")
    assert (seconds(5), count(200, 48)) == (MOMENT, 48)
    assert seconds(0.1) == 0.1


def test_a_server_of_a_trial_ends_with_its_guardian() -> None:
    """Nothing is left behind."""
    with serving({"cache": "off", "http_workers": 1}) as running:
        guardian = running.guardian
        assert under_load(running.url, concurrency=1, requests=2, warmup=1).measured
    assert running.process is not None
    assert running.process.poll() is not None
    assert guardian.poll() == 0
