"""One checkpoint in every precision."""

import numpy as np
import pytest

from litapi.checkpoint import DEMO, Checkpoint
from litapi.demo.judge import retrieval
from litapi.model.precision import PRECISIONS
from litapi.quality.pairs import Pairs
from notebooks.figures.study import CUTS, EXACT, Study


@pytest.fixture(scope="module")
def study() -> Study:
    return Study.of(Checkpoint.open(DEMO), Pairs.drawn(24))


def test_every_precision_has_vectors_or_a_reason(study: Study) -> None:
    """Nothing is left out in silence, and float32 comes first."""
    assert next(iter(study.vectors)) == EXACT
    assert {*study.vectors, *study.refused} == set(PRECISIONS)
    assert all(study.refused.values())
    assert [row[0] for row in study.table().rows] == [*study.vectors, *study.refused]


def test_recall_agrees_with_the_judges(study: Study) -> None:
    """It is the judge's own ranks, at more depths."""
    exact = study.vectors[EXACT]
    known = retrieval(exact.images, exact.texts)["text_to_image"]
    depths, found = study.recalls()[EXACT]
    assert depths == CUTS
    assert found[CUTS.index(1)] == known["recall@1"]
    assert found[CUTS.index(5)] == known["recall@5"]


def test_a_shift_is_the_distance_from_float32(study: Study) -> None:
    """Small, above nought, and not asked of float32 itself."""
    for kind in ("images", "texts"):
        shifts = study.shifts(kind)
        assert EXACT not in shifts
        assert shifts["int8"].shape == (24,)
        assert 0 < float(np.median(shifts["int8"])) < 0.01
    assert study.fidelity(EXACT).lost == 0


def test_the_worst_items_are_shown_with_what_both_find_first(study: Study) -> None:
    """The right picture, two by float32, two by the other."""
    worst = study.worst("int8", many=2)
    assert len(worst) == 2
    for caption, noted in worst.items():
        assert caption.strip("“”") in study.pairs.captions
        assert [note.partition(":")[0] for _, note in noted] == [
            "the right one", EXACT, EXACT, "int8", "int8",
        ]  # fmt: skip
