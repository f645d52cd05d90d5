"""The right vectors, computed by the server itself before the fault.

With `Cache-Control: no-store` they are neither read from a cache nor written to one. An answer is
right when each of its vectors has a cosine of at least 0.9999 with the right one: batches of
another size may change a vector by that much, and no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.faults.question import Question, Thing, in_octets
from bench.load.answer import Wrong, rows
from bench.load.connection import Address, ask_once, head_of

Vector = npt.NDArray[np.floating[Any]]
TOLERANCE = 0.9999
FRESH = {"cache-control": "no-store"}
GROUP = 16
PATIENCE = 300.0


class AnswerKey:
    """Thing → right vector, for one server."""

    def __init__(self) -> None:
        self._right: dict[bytes, Vector] = {}

    async def learn(self, url: str, things: Iterable[Thing]) -> None:
        """Have the server compute those that are not known yet."""
        new = {_name(thing): thing for thing in things if _name(thing) not in self._right}
        for kind in (str, bytes):
            wanted = [thing for thing in new.values() if isinstance(thing, kind)]
            for start in range(0, len(wanted), GROUP):
                await self._learn(Address.of(url), wanted[start : start + GROUP])

    async def _learn(self, address: Address, things: Sequence[Thing]) -> None:
        asked = in_octets(things)
        head = head_of(asked.path, len(asked.body), {**asked.headers, **FRESH})
        reply = await ask_once(address, head + asked.body, PATIENCE)
        if reply.status != 200:
            raise RuntimeError(f"no right answers to be had: {reply.body[:200]!r}")
        self.put(things, rows(reply.head, reply.body))

    def put(self, things: Iterable[Thing], vectors: Iterable[Vector]) -> None:
        self._right.update(zip(map(_name, things), vectors, strict=True))

    def right(self, question: Question, head: bytes, body: bytes) -> bool:
        """Whether an answer holds the right vectors, each in its place."""
        try:
            found = rows(head, body)
        except Wrong:
            return False
        if len(found) != len(question.things):
            return False
        pairs = zip(question.things, found, strict=True)
        return all(_close(self._right[_name(thing)], one) for thing, one in pairs)


def _close(right: Vector, found: Vector) -> bool:
    if right.shape != found.shape or not np.isfinite(found).all():
        return False
    one, other = right.astype(np.float64), found.astype(np.float64)
    return float(one @ other) >= TOLERANCE * float(np.linalg.norm(one) * np.linalg.norm(other)) > 0


def _name(thing: Thing) -> bytes:
    return sha256(thing.encode() if isinstance(thing, str) else b"\0" + thing).digest()
