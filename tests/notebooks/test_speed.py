"""Speed and memory of precisions, out of a result."""

from typing import Any

from notebooks.figures import speed

RECALL = {"text_to_image": {"recall@1": 0.95}, "image_to_text": {"recall@1": 0.95}}
LOST = {"text_to_image": {"recall@1": 0.5}, "image_to_text": {"recall@1": 0.95}}


def quality(found: dict[str, dict[str, float]]) -> dict[str, Any]:
    """As the gate gives it."""
    return {
        "pairs": 800,
        "cosine": {},
        "rank_correlation": 1.0,
        "recall": {"exact": RECALL, "found": found},
        "zero_shot": None,
        "score_change": {},
    }


def row(precision: str, ratio: float, **more: Any) -> dict[str, Any]:
    """As `bench.offline.precision` keeps it."""
    batches = {size: {"items_per_s": {"median": ratio * 10}, "ratio": ratio} for size in ("1", "8")}
    base = {"tower": "text", "precision": precision, "compiled": False, "batches": batches}
    held = {"resident_mb": 500, "load_s": 1.5, "cosine": {"worst": 0.999}}
    return {**base, **held, "demo_quality": quality(RECALL), **more}


FIELDS: dict[str, Any] = {
    "model": "base",
    "baseline": "AutoModel",
    "rows": [
        row("AutoModel", 1.0, demo_quality=None),
        row("float32", 1.1),
        row("int8", 2.5),
        row("float16", 9.0, demo_quality=quality(LOST)),
        {"tower": "text", "precision": "float8", "compiled": False, "refused": "no such device"},
    ],
}


def test_the_fastest_of_those_that_pass_the_gate_is_chosen() -> None:
    """Speed that loses recall is no speed, and the baseline is not a choice."""
    assert (
        speed.choice(FIELDS) == "The fastest that passes the gate: text: int8, 2.5 × the baseline."
    )


def test_the_table_keeps_what_the_machine_refused() -> None:
    """With no figures."""
    rows = speed.table(FIELDS).rows
    assert [one[1] for one in rows] == ["AutoModel", "float32", "int8", "float16", "float8"]
    assert rows[2][2:] == ["25.0", "25.0", "2.50", "0.99900", "500", "2"]
    assert rows[-1][-1] == "not on this machine"


def test_the_charts_show_ratio_and_memory_of_each_precision() -> None:
    """What was refused has no bar."""
    for chart, unit in ((speed.speed(FIELDS), "(ratio)"), (speed.memory(FIELDS), "(MB)")):
        labels = [one.get_text() for one in chart.axes[0].get_xticklabels()]
        assert labels == ["AutoModel", "float32", "int8", "float16"]
        assert unit in chart.axes[0].get_ylabel()
