"""Parts of a latency, Little's law, and the table of levels."""

import pytest

from bench.load.level import Level
from bench.load.summary import Summary
from notebooks.figures.latency import REST, flooded, in_flight, level_table, little, parts
from tests.support.recordings import refused, sample, stage

TIMES = {"cache": 1.0, "queue": 20.0, "decode": 2.0, "infer": 50.0}
MADE = Summary.of(stage(*(sample(n, 0.1, timings=TIMES) for n in range(20))))
NOBODY = Summary.of(stage(refused(0, 500), level=Level(1, concurrency=4, requests=1)))


def test_the_parts_are_what_the_server_told_and_the_rest() -> None:
    """Together they are the latency that the client saw; no answer has none."""
    assert set(parts(NOBODY).values()) == {0.0}
    assert in_flight(NOBODY) == 0
    found = parts(MADE)
    assert found["queue"] == pytest.approx(20)
    assert found[REST] == pytest.approx(100 - 73)
    assert MADE.latency_ms is not None
    assert sum(found.values()) == pytest.approx(MADE.latency_ms["mean"])


def test_single_items_without_a_flood_and_beside_each() -> None:
    """Medians of the rounds; those without a flood are of all rounds."""
    rounds = [
        {"flood": flood, "quiet_p99_ms": 10 * n, "mixed_p99_ms": slower * n}
        for n in (1, 2, 3)
        for flood, slower in (("bulk", 15), ("interactive", 90))
    ]
    assert [*flooded({"rounds": rounds}).values()] == [20, 30, 180]


def test_littles_law_finds_how_many_were_in_flight() -> None:
    """A request each tenth of a second that takes a tenth: one at a time, where four could be."""
    assert in_flight(MADE) == pytest.approx(1.0, rel=0.06)
    row = little([MADE]).rows[0]
    assert row[0] == "4"
    assert row[-1] in {"24%", "25%", "26%"}


def test_the_table_of_levels_has_a_row_for_each_system_and_level() -> None:
    """Concurrency against throughput, mean, P95, P99 and errors."""
    table = level_table({"one": [MADE], "two": [MADE, NOBODY]})
    assert [row[:2] for row in table.rows] == [["one", "4"], ["two", "4"], ["two", "4"]]
    assert table.rows[0][3:] == ["100.0", "100.0", "100.0", "0.00"]
    assert table.rows[2][3:] == ["–", "–", "–", "100.00"]
    assert "P99 ms" in table._repr_markdown_()
