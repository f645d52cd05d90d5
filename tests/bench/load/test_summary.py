"""Numbers and judgement from records alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as some

from bench.load.level import WARMUP, Level
from bench.load.recording import Recording
from bench.load.sample import STOPPED
from bench.load.summary import Report, Summary, main, percentile, spread
from tests.support.recordings import CALM, recorded, refused, sample, stage

VALUES = some.lists(some.floats(0, 1e6), min_size=1, max_size=300)


def judged(*stages: object, partial: bool = False, **run: object) -> Report:
    """The report of a run with these stages."""
    return Report.of(Recording(dict(run), list(stages), partial))  # type: ignore[arg-type]


@given(values=VALUES, share=some.sampled_from([0.0, 1.0, 50.0, 90.0, 95.0, 99.0, 99.9, 100.0]))
def test_percentiles_are_those_of_numpy(values: list[float], share: float) -> None:
    """Exact ones: a value that was really seen."""
    expected = np.percentile(values, share, method="inverted_cdf")
    assert percentile(sorted(values), share) == expected


@given(values=VALUES)
def test_a_spread_is_that_of_numpy(values: list[float]) -> None:
    """In milliseconds."""
    found = spread(values)
    assert found is not None
    assert found["mean"] == pytest.approx(np.mean(values) * 1e3)
    assert found["min"] == pytest.approx(min(values) * 1e3)
    assert found["max"] == pytest.approx(max(values) * 1e3)
    assert found["min"] <= found["p50"] <= found["p95"] <= found["p99"] <= found["max"]


def test_nothing_has_no_spread() -> None:
    """No zero is made up for it."""
    assert spread([]) is None


def test_throughput_counts_good_answers_over_the_window() -> None:
    """From the first request due to the last answer: ten in one second."""
    summary = Summary.of(stage(*(sample(i, 0.1) for i in range(10))))
    assert summary.window_s == pytest.approx(1.0)
    assert summary.throughput == pytest.approx(10.0)


def test_items_are_counted_apart_from_requests() -> None:
    """A batch of eight is one request."""
    summary = Summary.of(stage(*(sample(i, 0.1, items=8) for i in range(10))))
    assert summary.items_per_s == pytest.approx(8 * summary.throughput)


def test_refused_requests_are_no_throughput() -> None:
    """They take time and bring nothing."""
    summary = Summary.of(stage(sample(0), refused(1, 429), refused(2, 503), sample(9)))
    assert summary.good == 2
    assert summary.throughput == pytest.approx(2.0)


def test_an_open_loop_that_keeps_up_has_the_throughput_of_its_rate() -> None:
    """The gap after the last request belongs to it."""
    level = Level(1, rate=10.0, duration=1.0)
    summary = Summary.of(stage(*(sample(i, 0.01) for i in range(10)), level=level))
    assert summary.throughput == pytest.approx(10.0)


def test_an_open_loop_that_falls_behind_has_less() -> None:
    """Rate and throughput are kept apart."""
    level = Level(1, rate=10.0, duration=1.0)
    summary = Summary.of(stage(*(sample(i, 4.1) for i in range(10)), level=level))
    assert summary.rate == 10.0
    assert summary.throughput == pytest.approx(2.0)


def test_latencies_are_those_of_good_answers() -> None:
    """A quick refusal does not make a server quick."""
    summary = Summary.of(stage(sample(0, 0.5), refused(1, 429), refused(2, 500)))
    assert summary.latency_ms is not None
    assert summary.latency_ms["min"] == pytest.approx(500)


def test_errors_are_counted_by_what_they_are() -> None:
    """The most frequent first."""
    timeout = sample(3, status=0, error="timeout")
    summary = Summary.of(stage(sample(0), refused(1, 500), refused(2, 500), timeout))
    assert list(summary.errors.items()) == [("status 500", 2), ("timeout", 1)]
    assert summary.errors_pct == pytest.approx(75)


def test_busy_answers_are_counted_apart() -> None:
    """A 429 is no error."""
    summary = Summary.of(stage(sample(0), sample(1), sample(2), refused(3, 429)))
    assert (summary.errors_pct, summary.busy_pct) == (0.0, 25.0)
    assert summary.errors == {}


def test_what_was_cut_off_counts_neither_way() -> None:
    """Ctrl-C is not the server's fault."""
    summary = Summary.of(stage(sample(0), sample(1, status=0, error=STOPPED)))
    assert summary.unfinished == 1
    assert summary.errors_pct == 0.0
    assert summary.requests == 2


def test_hits_are_items_that_came_from_a_cache() -> None:
    """Of either tier; joins are apart."""
    mixed = {"hit-l1": 2, "hit-l2": 1, "join": 2, "miss": 3}
    summary = Summary.of(stage(sample(0, cache=mixed), sample(1, cache={"miss": 2})))
    assert summary.hits_pct == pytest.approx(30)
    assert summary.cache == {"miss": 5, "hit-l1": 2, "join": 2, "hit-l2": 1}


def test_a_server_without_a_cache_has_no_hit_share() -> None:
    """It is not nought, it is unknown."""
    summary = Summary.of(stage(sample(0)))
    assert summary.hits_pct is None
    assert summary.row()[-1] == "–"


def test_server_timings_are_averaged() -> None:
    """Over the answers that gave them."""
    samples = [sample(0, timings={"infer": 2.0}), sample(1, timings={"infer": 4.0, "cache": 1.0})]
    assert Summary.of(stage(*samples)).server_ms == {"infer": 3.0, "cache": 1.0}


def test_the_busiest_generator_process_speaks_for_all() -> None:
    """One that is bound spoils the level."""
    slow = replace(CALM, process=1, cpu=0.95, lag_p99_ms=4.0, check_stride=8, connections=6)
    one = stage(sample(0))
    one.gauges.append(slow)
    summary = Summary.of(one)
    assert summary.bound
    assert summary.generator == {
        "processes": 2,
        "cpu_max": 0.95,
        "lag_p99_ms": 4.0,
        "lag_max_ms": 2.0,
        "connections": 10,
        "check_stride": 8,
        "bound": True,
    }


def test_a_level_without_answers_still_has_a_row() -> None:
    """With nothing where nothing was seen."""
    row = Summary.of(stage(refused(0, 503))).row()
    assert row[3:8] == ["–"] * 5
    assert row[8] == "100.00"


def test_a_run_without_errors_passes() -> None:
    """And says so."""
    report = judged(stage(sample(0)))
    assert report.failures == []
    assert report.fields()["passed"] is True


@pytest.mark.parametrize("error", ["timeout", "refused", "half-answer", "not-unit", "status 500"])
def test_one_failed_point_fails_the_run(error: str) -> None:
    """However many were good."""
    report = judged(stage(*(sample(i) for i in range(999)), sample(999, error=error)))
    assert report.failures == [f"level 4: 0.10 % errors: 1 × {error}"]


def test_busy_answers_do_not_fail_a_run() -> None:
    """A server may say that it is full."""
    assert not judged(stage(sample(0), refused(1, 429))).failures


def test_nothing_but_busy_answers_fails_a_run() -> None:
    """It measured nothing."""
    assert judged(stage(refused(0, 429))).failures == ["level 4: no good answer"]


def test_errors_up_to_the_allowed_share_are_forgiven() -> None:
    """For a baseline that is known to drop some."""
    one = stage(*(sample(i) for i in range(9)), refused(9, 500))
    assert not judged(one, allow_errors=10.0).failures
    assert judged(one, allow_errors=9.9).failures
    assert not Report.of(Recording({}, [one], False), 10.0).failures


def test_a_run_that_was_cut_off_does_not_pass() -> None:
    """What it measured is shown, marked as partial."""
    report = judged(stage(sample(0)), partial=True)
    assert report.failures == ["cut off: what is shown is partial"]
    assert report.fields()["partial"] is True
    assert len(report.summaries) == 1


def test_a_run_that_measured_nothing_does_not_pass() -> None:
    """An empty table is no success."""
    assert judged().failures == ["nothing was measured"]


def test_a_failed_warm_up_is_the_reason_given() -> None:
    """Rather than that the run was cut off."""
    warm = stage(sample(0, status=0, error="refused"), level=Level(WARMUP, concurrency=1))
    assert judged(warm, partial=True).failures == ["warm-up: no good answer: 1 × refused"]


def test_the_warm_up_is_not_in_the_table() -> None:
    """Slow first answers do not count."""
    warm = stage(sample(0, 9.0), level=Level(WARMUP, concurrency=1))
    report = judged(warm, stage(sample(0)))
    assert [one.level for one in report.summaries] == ["4"]


def test_a_report_says_which_levels_the_generator_bound() -> None:
    """Those numbers are its own, not the server's."""
    slow = stage(sample(0), level=Level(2, concurrency=500), gauge=replace(CALM, cpu=0.99))
    assert "generator-bound: yes, at 500" in judged(stage(sample(0)), slow).lines()
    assert "generator-bound: no" in judged(stage(sample(0))).lines()


def test_a_report_says_how_many_bodies_were_checked() -> None:
    """Of those that came."""
    one = stage(sample(0, checked=True), sample(1))
    assert "bodies checked: 1 of 2" in judged(one).lines()


def test_the_last_line_is_the_whole_run_as_json() -> None:
    """For programs."""
    last = orjson.loads(judged(stage(sample(0)), seed=7).lines()[-1])
    assert last["run"] == {"seed": 7}
    assert last["levels"][0]["good"] == 1
    assert last["generator_bound"] is False


def test_numbers_in_json_are_short() -> None:
    """Four digits after the point at most."""
    third = stage(sample(0, 1 / 3), sample(1, 1 / 7, timings={"infer": 1 / 3}))
    level = orjson.loads(judged(third).lines()[-1])["levels"][0]
    assert level["latency_ms"]["max"] == 333.333
    assert level["server_ms"] == {"infer": 0.3333}


def test_the_command_prints_the_report_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is all it needs."""
    path = recorded(tmp_path / "a.jsonl", stage(sample(0), sample(1)))
    assert main([str(path)]) == 0
    assert capsys.readouterr().out == "\n".join(Report.of(Recording.read(path)).lines()) + "\n"


@pytest.mark.parametrize(("allowed", "code"), [([], 1), (["--allow-errors", "50"], 0)])
def test_the_command_judges(tmp_path: Path, allowed: list[str], code: int) -> None:
    """By the run's own measure or by another."""
    path = recorded(tmp_path / "a.jsonl", stage(sample(0), refused(1, 500)))
    assert main([str(path), *allowed]) == code


@pytest.mark.parametrize("content", [None, b"no recording\n"])
def test_the_command_refuses_what_is_no_recording(
    tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a sentence, not a traceback."""
    path = tmp_path / "a.jsonl"
    if content:
        path.write_bytes(content)
    assert main([str(path)]) == 2
    assert capsys.readouterr().err.startswith("bench: ")
