"""The figures that decide whether a precision may be served."""

from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from litapi.demo.judge import unit
from litapi.quality.fidelity import Fidelity, Judged

PAIRS, DIM = 200, 64
SCALE, BIAS = 20.0, -10.0


def judged(noise: float = 0.0, seed: int = 0) -> Judged:
    """Pairs that a good model finds: each text lies near its image. `noise` moves all of them."""
    random = np.random.default_rng(0)
    images = random.normal(size=(PAIRS, DIM))
    texts = images + 0.3 * random.normal(size=(PAIRS, DIM))
    classes = random.normal(size=(5, DIM))
    moved = np.random.default_rng(seed)
    rows = [one + noise * moved.normal(size=one.shape) for one in (images, texts, classes)]
    return Judged(*(unit(one).astype(np.float32) for one in rows))


def compared(found: Judged, truth: list[int] | None = None) -> Fidelity:
    return Fidelity.of(judged(), found, truth or [], SCALE, BIAS)


def swapped(count: int) -> Judged:
    """The texts of the first `count` pairs are each other's."""
    one = judged()
    texts = one.texts.copy()
    texts[:count] = np.roll(texts[:count], 1, axis=0)
    return Judged(one.images, texts, one.classes)


def test_equal_vectors_lose_nothing() -> None:
    """The figures of something compared with itself."""
    found = compared(judged(), [0] * PAIRS)
    assert found.passed
    assert found.lost == 0
    assert found.pairs == PAIRS
    assert found.cosine["text"]["worst"] == pytest.approx(1, abs=1e-6)
    assert found.rank_correlation == pytest.approx(1)
    assert found.score_change == {"mean": 0, "largest": 0}
    assert found.zero_shot is not None
    assert found.zero_shot["exact"] == found.zero_shot["found"]


@pytest.mark.parametrize(("lost", "passed"), [(0, True), (2, True), (3, False), (50, False)])
def test_one_percent_may_be_lost_and_no_more(lost: int, passed: bool) -> None:
    """Of two hundred pairs, two."""
    found = compared(swapped(lost))
    assert round(found.lost * PAIRS) == lost
    assert found.passed is passed


def test_one_pair_of_few_is_no_evidence() -> None:
    """Of fifty pairs one is two percent; two are a loss all the same."""
    both = {"text_to_image", "image_to_text"}

    def lost(share: float) -> Fidelity:
        recall = {
            "exact": {way: {"recall@1": 1.0} for way in both},
            "found": {way: {"recall@1": 1.0 - share} for way in both},
        }
        return Fidelity(50, {}, 1.0, recall, None, {"mean": 0.0, "largest": 0.0}, 0)

    assert lost(1 / 50).passed
    assert not lost(2 / 50).passed


def test_the_worse_way_round_decides() -> None:
    """What images still find, texts may have lost."""
    exact = judged()
    found = Judged(exact.images, exact.texts.copy(), exact.classes)
    found.texts[:40] = exact.texts[40:80]
    fidelity = compared(found)
    ways = fidelity.recall["found"]
    assert fidelity.lost == pytest.approx(
        1 - min(ways["text_to_image"]["recall@1"], ways["image_to_text"]["recall@1"])
    )


def test_more_noise_is_seen_in_every_figure() -> None:
    """Cosine, rank correlation and probabilities fall and rise together."""
    little, much = compared(judged(0.05, 1)), compared(judged(0.5, 1))
    for kind in ("text", "image"):
        assert little.cosine[kind]["worst"] > much.cosine[kind]["worst"]
    assert 1 > little.rank_correlation > much.rank_correlation
    assert 0 < little.score_change["mean"] < much.score_change["mean"]
    assert little.score_change["mean"] < little.score_change["largest"]


def test_people_are_told_what_changed() -> None:
    """Every figure has its line, the verdict says what is lost, and all of it survives JSON."""
    found = compared(swapped(5), [1] * PAIRS)
    fields: dict[str, Any] = orjson.loads(orjson.dumps(found.fields()))
    assert Fidelity(**fields) == found
    unlabelled = compared(judged())
    assert unlabelled.zero_shot is None
    assert not any("zero-shot" in line for line in unlabelled.lines())
    text = "\n".join(found.lines())
    for word in ("cosine, text", "cosine, image", "rank", "text to image", "zero-shot", "/score"):
        assert word in text
    assert found.sentence == "recall@1 loses 2.50% of 200 pairs; 1% may be lost."


def test_vectors_that_are_not_finite_never_pass() -> None:
    """float16 overflows on some pictures: nothing is found by them, and the server would fail."""
    pairs = judged()
    broken = pairs.images.copy()
    broken[3, 5] = np.nan
    found = Fidelity.of(pairs, replace(pairs, images=broken), [], 20.0, -5.0)
    assert found.overflowed == 1
    assert not found.passed
    assert "not finite" in found.sentence
    assert Fidelity(**orjson.loads(orjson.dumps(found.fields()))) == found
    assert found.cosine["image"]["worst"] == 0
    whole = Fidelity.of(pairs, replace(pairs, images=broken * np.nan), [], 20.0, -5.0)
    assert whole.recall["found"]["text_to_image"]["recall@1"] == 0
