"""An item's vector in OpenVINO is equal to the bit alone, in any batch, order and worker."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from litapi.checkpoint import Checkpoint
from litapi.model.encoder import ImageEncoder, TextEncoder, choose_precision
from tests.support.inputs import Vectors, own_items

PRECISIONS = sorted({"float32", choose_precision("auto", "cpu"), "int8"})
COUNT = 9
COMPANIES = [
    *([number] for number in range(COUNT)),
    *([0, number] for number in range(1, COUNT)),
    [2, 4, 6],
    list(range(8)),
    list(reversed(range(8))),
    [*range(COUNT), *range(COUNT)],
]


def load(checkpoint: Checkpoint, kind: str, precision: str, threads: int) -> Any:
    tower: Any = TextEncoder if kind == "text" else ImageEncoder
    return tower.load(checkpoint, precision=precision, threads=threads, engine="openvino")


def companies(encoder: Any, some: Sequence[Any]) -> Iterator[tuple[list[int], Vectors]]:
    for chosen in COMPANIES:
        if isinstance(some, np.ndarray):
            yield chosen, encoder.embed(some[chosen])
        else:
            yield chosen, encoder.embed([some[number] for number in chosen])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_vector_has_the_same_bits_in_any_company(
    checkpoint: Checkpoint, kind: str, precision: str
) -> None:
    """Neighbours, order, threads and another worker are no part of a key, nor of a vector."""
    some = own_items(checkpoint, kind, COUNT)
    first = load(checkpoint, kind, precision, 1)
    alone = np.concatenate([first.embed(some[number : number + 1]) for number in range(COUNT)])
    assert len(np.unique(alone, axis=0)) == COUNT
    for encoder in (first, load(checkpoint, kind, precision, 2)):
        for chosen, rows in companies(encoder, some):
            assert np.array_equal(rows, alone[chosen]), chosen
