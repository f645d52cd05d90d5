"""Two batches under way: the same rows to the bit, and nothing of one gets into the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from litapi.checkpoint import Checkpoint
from litapi.model.encoder import ImageEncoder, TextEncoder
from litapi.model.engines.slots import Slot
from tests.support.inputs import own_items
from tests.support.late import late

SIZES = (3, 1, 5, 5, 2, 4, 1, 6)  # of batches, one after the other


@pytest.fixture(params=["torch", "openvino"])
def engine(request: pytest.FixtureRequest) -> str:
    """Each of them."""
    return str(request.param)


def batches(checkpoint: Checkpoint, kind: str) -> list[Any]:
    """Of unlike texts, or of unlike grids and lengths."""
    items = own_items(checkpoint, kind, sum(SIZES))
    ends = np.cumsum(SIZES)
    return [items[end - size : end] for end, size in zip(ends, SIZES, strict=True)]


def load(checkpoint: Checkpoint, kind: str, engine: str) -> Any:
    tower: Any = TextEncoder if kind == "text" else ImageEncoder
    return tower.load(checkpoint, engine=engine)


@pytest.mark.parametrize("kind", ["text", "image"])
def test_rows_are_those_of_one_batch_after_the_other(
    checkpoint: Checkpoint, kind: str, engine: str
) -> None:
    """To the bit, though each batch is begun before the last is read and its slot is spoilt."""
    some, encoder = batches(checkpoint, kind), load(checkpoint, kind, engine)
    expected = [encoder.embed(batch) for batch in some]
    late(encoder)
    collect, rows = encoder.submit(some[0]), []
    for batch in some[1:]:
        following = encoder.submit(batch)
        rows.append(collect())
        collect = following
    rows.append(collect())
    for found, wanted in zip(rows, expected, strict=True):
        assert np.array_equal(found, wanted)
    assert len(encoder.engine.spoilt) == 2


@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_batch_that_fails_leaves_the_other_as_it_is(
    checkpoint: Checkpoint, kind: str, engine: str
) -> None:
    """In its first half, behind a batch under way and before one; and no slot is lost."""
    some, encoder = batches(checkpoint, kind), load(checkpoint, kind, engine)
    expected = [encoder.embed(batch) for batch in some[:2]]
    late(encoder)
    for _ in range(3):
        first = encoder.submit(some[0])
        with pytest.raises(Exception, match=r".+"):
            encoder.submit([None])()
        second = encoder.submit(some[1])
        assert np.array_equal(first(), expected[0])
        assert np.array_equal(second(), expected[1])
    assert len(encoder.engine.spoilt) == 2


def test_a_batch_that_fails_on_the_device_fails_when_it_is_collected(
    checkpoint: Checkpoint,
) -> None:
    """As a GPU's does; those before and behind it have their rows."""
    some, encoder = batches(checkpoint, "text"), load(checkpoint, "text", "torch")
    expected = [encoder.embed(batch) for batch in some[:2]]
    late(encoder)
    collects = [
        encoder.submit(some[0]),
        encoder.submit(np.full((2, 64), -7)),
        encoder.submit(some[1]),
    ]
    assert np.array_equal(collects[0](), expected[0])
    with pytest.raises(IndexError):
        collects[1]()
    assert np.array_equal(collects[2](), expected[1])


def test_an_array_of_a_slot_lies_where_the_last_batchs_lay() -> None:
    """Memory is made for the largest batch alone; two arrays of one batch never overlap."""
    slot = Slot()
    for rows in (7, 3, 8, 1):
        levels, index = slot.array((rows, 50), np.uint8), slot.array((rows,), np.int64)
        levels.fill(1)
        index.fill(2)
        assert (levels == 1).all()
        slot.clear()
    sizes = [memory.size for memory in slot.held]
    slot.array((8, 50), np.uint8)
    assert [memory.size for memory in slot.held] == sizes
