"""The second model of row 28, and how an answer is judged while both models serve."""

import json
from pathlib import Path

import numpy as np

from bench.faults.question import as_floats
from bench.faults.rollout import NEW, OLD, ModelKey, write_negated
from bench.reference import Reference
from bench.rig.random_checkpoint import DEMO
from litapi.demo.drawing import Scene, draw

VECTOR = np.asarray([1.0, 0.0, 0.0])
QUESTION = as_floats(["a", "b"])


def test_the_other_model_has_the_same_numbers_negated(tmp_path: Path) -> None:
    """So its right answers are known, and differ from the demo's."""
    demo, other = Reference(DEMO), Reference(write_negated(tmp_path / "other"))
    shape = draw(Scene("red", "circle"), seed=1)
    for one, negated in (
        (demo.text("a red circle"), other.text("a red circle")),
        (demo.image(shape), other.image(shape)),
    ):
        np.testing.assert_allclose(one, -negated, atol=1e-6)
        assert abs(one - negated).max() > 0.1


def answer(model: str, *rows: list[float]) -> bytes:
    """An answer as the service gives it."""
    return json.dumps({"embeddings": rows, "model": model}).encode()


def test_an_answer_is_judged_by_the_model_that_it_names() -> None:
    """A vector of the one under the name of the other is wrong; so is an unknown name."""
    key = ModelKey()
    key.put(["a", "b"], [VECTOR, VECTOR])
    right, negated = [1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]
    assert key.right(QUESTION, b"", answer(OLD, right, right))
    assert key.right(QUESTION, b"", answer(NEW, negated, negated))
    assert not key.right(QUESTION, b"", answer(NEW, right, right))
    assert not key.right(QUESTION, b"", answer(OLD, right, negated))
    assert not key.right(QUESTION, b"", answer("another", right, right))
    assert key.answers == {OLD: 2, NEW: 2, "another": 1}
