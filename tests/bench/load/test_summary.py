"""Numbers and judgement from records alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from bench.load.level import WARMUP, Level
from bench.load.recording import STOPPED, Recording, Sample, Stage
from bench.load.summary import Report, Summary, main, percentile, spread
from tests.support.recordings import CALM, refused, sample, stage

VALUES = some.lists(some.floats(0, 1e6), min_size=1, max_size=300)
OPEN = Level(1, rate=10.0, duration=1.0)
WARM = Level(WARMUP, concurrency=1)


def summed(*samples: Sample, level: Level | None = None) -> Summary:
    return Summary.of(stage(*samples, level=level))


def judged(*stages: Stage, partial: bool = False, **run: object) -> Report:
    """The report of a run with these stages."""
    return Report.of(Recording(dict(run), list(stages), partial))


def ten(latency: float, **fields: int) -> list[Sample]:
    return [sample(i, latency, **fields) for i in range(10)]


@given(values=VALUES, share=some.sampled_from([0.0, 1.0, 50.0, 90.0, 95.0, 99.0, 99.9, 100.0]))
def test_percentiles_are_those_of_numpy(values: list[float], share: float) -> None:
    """Exact ones: a value that was really seen."""
    expected = np.percentile(values, share, method="inverted_cdf")
    assert percentile(sorted(values), share) == expected


@given(values=VALUES)
def test_a_spread_is_that_of_numpy(values: list[float]) -> None:
    """In milliseconds; nothing has none, and no zero is made up for it."""
    found = spread(values)
    assert found is not None
    assert found["mean"] == pytest.approx(np.mean(values) * 1e3)
    assert found["min"] == pytest.approx(min(values) * 1e3)
    assert found["max"] == pytest.approx(max(values) * 1e3)
    assert found["min"] <= found["p50"] <= found["p95"] <= found["p99"] <= found["max"]
    assert spread([]) is None


@pytest.mark.parametrize(
    ("summary", "throughput", "items"),
    [
        (summed(*ten(0.1)), 10.0, 10.0),  # from the first request due to the last answer: a second
        (summed(*ten(0.1, items=8)), 10.0, 80.0),  # a batch of eight is one request
        (summed(sample(0), refused(1, 429), refused(2, 503), sample(9)), 2.0, 2.0),
        (summed(*ten(0.01), level=OPEN), 10.0, 10.0),  # the gap after the last one belongs to it
        (summed(*ten(4.1), level=OPEN), 2.0, 2.0),  # it falls behind its rate
    ],
)
def test_throughput_counts_good_answers_over_the_window(
    summary: Summary, throughput: float, items: float
) -> None:
    """Items apart from requests; what was refused takes time and brings nothing."""
    assert summary.throughput == pytest.approx(throughput)
    assert summary.items_per_s == pytest.approx(items)


def test_errors_are_counted_by_what_they_are() -> None:
    """The most frequent first."""
    timeout = sample(3, status=0, error="timeout")
    summary = summed(sample(0), refused(1, 500), refused(2, 500), timeout)
    assert list(summary.errors.items()) == [("status 500", 2), ("timeout", 1)]
    assert summary.errors_pct == pytest.approx(75)


def test_what_is_no_error_is_counted_apart() -> None:
    """A 429; and what Ctrl-C cut off is not the server's fault."""
    busy = summed(sample(0), sample(1), sample(2), refused(3, 429))
    assert (busy.errors, busy.errors_pct, busy.busy_pct) == ({}, 0.0, 25.0)
    stopped = summed(sample(0), sample(1, status=0, error=STOPPED))
    assert (stopped.unfinished, stopped.errors_pct, stopped.requests) == (1, 0.0, 2)


def test_hits_are_items_that_came_from_a_cache() -> None:
    """Of either tier; joins are apart, and without a cache their share is unknown, not nought."""
    mixed = {"hit-l1": 2, "hit-l2": 1, "join": 2, "miss": 3}
    summary = summed(sample(0, cache=mixed), sample(1, cache={"miss": 2}))
    assert summary.hits_pct == pytest.approx(30)
    assert summary.cache == {"miss": 5, "hit-l1": 2, "join": 2, "hit-l2": 1}
    assert summed(sample(0)).hits_pct is None
    assert summed(sample(0)).row()[-1] == "–"


def test_server_timings_are_averaged() -> None:
    """Over the answers that gave them."""
    samples = [sample(0, timings={"infer": 2.0}), sample(1, timings={"infer": 4.0, "cache": 1.0})]
    assert summed(*samples).server_ms == {"infer": 3.0, "cache": 1.0}


def test_the_busiest_generator_process_speaks_for_all() -> None:
    """One that is bound spoils the level."""
    slow = replace(CALM, process=1, cpu=0.95, lag_p99_ms=4.0, check_stride=8, connections=6)
    one = stage(sample(0))
    one.gauges.append(slow)
    assert Summary.of(one).bound
    shown = Summary.of(one).generator
    assert (shown["cpu_max"], shown["connections"], shown["check_stride"]) == (0.95, 10, 8)


def test_a_level_without_answers_still_has_a_row() -> None:
    """With nothing where nothing was seen."""
    row = summed(refused(0, 503)).row()
    assert row[3:8] == ["–"] * 5
    assert row[8] == "100.00"


ERRORS = ("timeout", "refused", "half-answer", "not-unit", "status 500")
ONE_IN_TEN = stage(*(sample(i) for i in range(9)), refused(9, 500))
DOWN = stage(sample(0, status=0, error="refused"), level=WARM)


@pytest.mark.parametrize(
    ("report", "failures"),
    [
        (judged(stage(sample(0))), []),
        *(
            (
                judged(stage(*(sample(i) for i in range(999)), sample(999, error=error))),
                [f"level 4: 0.10 % errors: 1 × {error}"],
            )
            for error in ERRORS
        ),
        (judged(stage(sample(0), refused(1, 429))), []),  # a server may say that it is full
        (judged(stage(refused(0, 429))), ["level 4: no good answer"]),  # but not to all
        (judged(ONE_IN_TEN, allow_errors=10.0), []),
        (judged(ONE_IN_TEN, allow_errors=9.9), ["level 4: 10.00 % errors: 1 × status 500"]),
        (Report.of(Recording({}, [ONE_IN_TEN], False), 10.0), []),
        (judged(stage(sample(0)), partial=True), ["cut off: what is shown is partial"]),
        (judged(), ["nothing was measured"]),  # an empty table is no success
        (judged(DOWN, partial=True), ["warm-up: no good answer: 1 × refused"]),
    ],
)
def test_a_run_passes_or_says_why_not(report: Report, failures: list[str]) -> None:
    """One failed point fails it, however many were good; 429 does not."""
    assert report.failures == failures
    assert report.fields()["passed"] is not bool(failures)


def test_a_report_says_which_levels_the_generator_bound_and_what_was_checked() -> None:
    """Numbers of such a level are the generator's own, not the server's."""
    slow = stage(sample(0), level=Level(2, concurrency=500), gauge=replace(CALM, cpu=0.99))
    checked = stage(sample(0, checked=True), sample(1))
    assert "generator-bound: yes, at 500" in judged(stage(sample(0)), slow).lines()
    assert {"generator-bound: no", "bodies checked: 1 of 2"} <= {*judged(checked).lines()}


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
