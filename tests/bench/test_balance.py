"""Kills, restarts and a change of models behind real balancers, in the short form.

A row runs behind one of the two; `python -m bench.balance` runs each behind both.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from bench.balance.__main__ import flags, main
from bench.balance.balancer import BALANCERS, HAProxy, Missing, Nginx
from bench.balance.model_key import ModelKey, ReversedKey
from bench.balance.reversed_model import DEMO, write
from bench.balance.rollout import NEW, OLD, Rollout
from bench.faults.answer_key import AnswerKey
from bench.faults.question import as_floats
from bench.faults.row import Finding
from bench.faults.stage import Stage
from litapi.demo.drawing import Scene, draw

VECTOR = np.asarray([1.0, 0.0, 0.0])
QUESTION = as_floats(["a", "b"])


def installed() -> bool:
    """Whether both balancers are."""
    try:
        return bool([one.find() for one in BALANCERS.values()])
    except Missing:
        return False


async def played() -> dict[str, Finding]:
    """Some rows behind each balancer, on the same instances: starting those is what takes time."""
    async with Stage(long=False) as stage, Rollout(Nginx, *flags(long=False)) as rollout:
        shared, killed, _, changed = rollout.rows()
        found = {row.fault: await row.found(stage) for row in (shared, killed)}
        await rollout.put_before(HAProxy)
        return {**found, changed.fault: await changed.found(stage)}


@pytest.mark.skipif(not installed(), reason="apt-get install nginx-light haproxy")
def test_no_answer_is_lost_and_none_is_wrong() -> None:
    """Whatever becomes of the instances, no client notices, and none of them tries again."""
    findings = asyncio.run(played())
    assert {fault: one.broken for fault, one in findings.items() if not one.holds} == {}
    assert all(one.tally.compared > 100 for one in findings.values())


def test_the_other_model_has_the_same_numbers_in_reverse(tmp_path: Path) -> None:
    """So its right answers are known, and differ from the demo's."""
    from bench.reference import Reference

    demo, other = Reference(DEMO), Reference(write(tmp_path / "other"))
    shape = draw(Scene("red", "circle"), seed=1)
    for one, reverse in (
        (demo.text("a red circle"), other.text("a red circle")),
        (demo.image(shape), other.image(shape)),
    ):
        np.testing.assert_allclose(one, reverse[::-1], atol=1e-6)
        assert abs(one - reverse).max() > 0.1


def answer(model: str, *rows: list[float]) -> bytes:
    """An answer as the service gives it."""
    return json.dumps({"embeddings": rows, "model": model}).encode()


def test_an_answer_is_judged_by_the_model_that_it_names() -> None:
    """A vector of the one under the name of the other is wrong; so is an unknown name."""
    old = AnswerKey()
    old.put(["a", "b"], [VECTOR, VECTOR])
    key = ModelKey({OLD: old, NEW: ReversedKey(old)})
    right, reverse = [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]
    judge = "application/json"
    assert key.right(QUESTION, judge, answer(OLD, right, right))
    assert key.right(QUESTION, judge, answer(NEW, reverse, reverse))
    assert not key.right(QUESTION, judge, answer(NEW, right, right))
    assert not key.right(QUESTION, judge, answer(OLD, right, reverse))
    assert not key.right(QUESTION, judge, answer("another", right, right))
    assert key.answers == {OLD: 2, NEW: 2, "another": 1}


def test_a_balancer_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Before anything is started; exit code 2, as for all that cannot be done."""
    monkeypatch.setattr(BALANCERS["nginx"], "name", "nginx-that-is-not-there")
    assert main(["--front", "nginx", "--out", str(tmp_path)]) == 2
    assert "apt-get install nginx-light" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
