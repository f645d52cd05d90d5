"""Are a system's vectors right? Asked alone and all together, before anybody times it.

A system that is wrong may be fast, so it is shown and no other is compared with it. The texts are
such that known mistakes show: capitals, more than 64 tokens, very short beside very long. The
pictures are those of the workload.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
from PIL import Image

from bench.compare.baselines.system import Served
from bench.load.connection import Address, Fault, ask_once
from bench.load.route import Route, Rows, Wrong, rows
from bench.load.workload import Item, Job, Kind, Picture, drawings

SAME = 0.9999
NEAR = 0.995  # for numbers of less than 32 bits
TEXTS = (
    "dot",
    "A RED Circle, In Capitals",
    "two small blue squares on grey",
    "a red fox and " * 40,
)
PICTURES = 4
TURNS = 3  # times that all items are asked at once
PATIENCE = 300.0


class NoVectors(Exception):
    """A system answered without any; says how."""


class Proof:
    """The right vectors of a few items of a checkpoint, by transformers."""

    def __init__(self, checkpoint: Path) -> None:
        from bench.reference import Reference  # torch: not for the generators that import this

        reference = Reference(checkpoint)
        pictures = drawings(seed=1, many=PICTURES)
        self._items = {
            "text": [Item("text", text.encode(), orjson.dumps(text)) for text in TEXTS],
            "image": [Picture(data).stamped(0) for data in pictures],
        }
        opened = [Image.open(io.BytesIO(data)).convert("RGB") for data in pictures]
        self._right = {
            "text": np.stack([reference.text(text) for text in TEXTS]),
            "image": np.stack([reference.image(one) for one in opened]),
        }

    def fault(self, served: Served, kind: Kind, least: float = SAME) -> str | None:
        """What is wrong with a system's vectors, or None. `least` is a cosine.

        Raises:
            NoVectors: there are none to look at.
        """
        try:
            alone, together = asyncio.run(_asked(served, kind, self._items[kind]))
        except (Wrong, Fault) as error:
            raise NoVectors(f"no vectors of {kind}: {error}") from None
        for how, found in (("alone", alone), ("together", together)):
            right = np.tile(self._right[kind], (len(found) // len(self._right[kind]), 1))
            if found.shape != right.shape:
                return f"{kind}: vectors of {found.shape[1]} numbers, not {right.shape[1]}"
            worst = ((found * right).sum(1) / np.linalg.norm(found, axis=1)).min()
            if not worst >= least:  # NaN is less than any
                return f"{kind} asked {how}: cosine {worst:.4f}"
        return None


async def _asked(served: Served, kind: Kind, items: Sequence[Item]) -> tuple[Rows, Rows]:
    address = Address.of(served.url)
    way = Route(address, served.form, served.text_path, served.image_path, served.model)
    alone = [await _vector(way, kind, item) for item in items]
    many = await asyncio.gather(*(_vector(way, kind, item) for item in [*items] * TURNS))
    return np.concatenate(alone), np.concatenate(many)


async def _vector(way: Route, kind: Kind, item: Item) -> Rows:
    reply = await ask_once(way.address, way.request(Job(kind, [item])), PATIENCE)
    if reply.status != 200:
        raise Wrong(f"status {reply.status}")
    return rows(reply.head, reply.body)
