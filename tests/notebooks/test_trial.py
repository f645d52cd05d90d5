"""Trials: short loads on real servers, one of them while Redis stands still."""

import signal
import subprocess
import sys

import pytest

from bench.faults.vitals import births, survivors
from bench.rig.server_process import ROOT
from notebooks.figures.hang import Hang
from notebooks.figures.trial import MOMENT, QUICK, count, flags, seconds, serving, under_load
from tests.support.patience import awaited
from tests.support.recordings import refused, sample


def test_options_become_flags() -> None:
    """As the command lines know them."""
    options = {"text_workers": 2, "concurrency": (1, 8), "cold": True, "quiet": False}
    assert flags(options) == ["--text-workers", "2", "--concurrency", "1,8", "--cold"]


def test_a_test_that_only_looks_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody else gets what was asked for."""
    monkeypatch.delenv(QUICK, raising=False)
    assert (seconds(5), count(200, 48)) == (5, 200)
    monkeypatch.setenv(QUICK, "1")
    assert (seconds(5), seconds(0.1), count(200, 48)) == (MOMENT, 0.1, 48)


def test_a_server_of_a_trial_ends_with_its_trial() -> None:
    """Nothing is left behind."""
    with serving({"cache": "off", "http_workers": 1}) as running:
        assert under_load(running.url, concurrency=1, requests=2, warmup=1).measured
    assert running.process is not None
    assert running.process.poll() is not None


KERNEL = """
import signal
from notebooks.figures.trial import serving
print(serving({"cache": "off", "http_workers": 1}).start().pid, flush=True)
signal.pause()
"""


def test_a_server_of_a_kernel_that_is_killed_ends_too() -> None:
    """Killed: so that nothing of it could run to clean up. Until then the server lives on."""
    with subprocess.Popen([sys.executable, "-c", KERNEL], cwd=ROOT, stdout=subprocess.PIPE) as one:
        assert one.stdout is not None
        known = births([int(one.stdout.readline())])
        assert survivors(known) == set(known)
        one.send_signal(signal.SIGKILL)
    awaited(lambda: not survivors(known))


def test_a_hang_shows_every_request_by_where_its_vector_came_from() -> None:
    """And shades the time for which Redis stood still. Only what was sent and answered meanwhile
    counts: an answer may have been on its way, so neither end does."""
    still = range(5, 15)  # of twenty requests, one each tenth of a second
    samples = [sample(n, 0.01, cache={"miss" if n in still else "hit-l2": 1}) for n in range(20)]
    hang = Hang([*samples, refused(20, 500)], start=0.49, end=1.49)
    assert [one.cache for one in hang.during()] == [{"miss": 1}] * 9
    axes = hang.chart().axes[0]
    assert axes.get_legend_handles_labels()[1] == ["hit-l2", "miss", "status 500"]
    assert [text.get_text() for text in axes.texts] == ["Redis stopped"]
    assert "(ms)" in axes.get_ylabel()


def test_a_stopped_redis_costs_hits_and_no_answer() -> None:
    """On a real server, whose every look-up goes to a real Redis that is stopped for a while."""
    hang = Hang.play(rate=20, before=0.7, lasting=1.0, after=0.7)
    assert not [one for one in hang.samples if one.failed]
    before = [one for one in hang.samples if one.done < hang.start]
    assert any("hit-l2" in one.cache for one in before)
    assert not any("hit-l2" in one.cache for one in hang.during())
