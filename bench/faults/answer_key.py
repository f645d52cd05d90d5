"""The right vectors, computed by the server itself before the fault, with nothing kept.

`Cache-Control: no-store` goes past every cache on both ways, so what is compared later was
computed, and not stored, at least once. An answer is right when each of its vectors has a cosine
of at least 0.9999 with the right one: what a batch of other size may shift, and no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

import aiohttp
import numpy as np

from bench.faults.question import Question, Thing, Vector, in_octets, vectors

TOLERANCE = 0.9999
FRESH = {"cache-control": "no-store"}
GROUP = 16


class AnswerKey:
    """Thing → right vector, for one server."""

    def __init__(self) -> None:
        self._right: dict[bytes, Vector] = {}

    async def learn(self, url: str, things: Iterable[Thing]) -> None:
        """Have the server compute those that are not known yet."""
        new = {_name(thing): thing for thing in things if _name(thing) not in self._right}
        async with aiohttp.ClientSession(url) as session:
            for kind in (str, bytes):
                wanted = [thing for thing in new.values() if isinstance(thing, kind)]
                for start in range(0, len(wanted), GROUP):
                    await self._learn(session, wanted[start : start + GROUP])

    async def _learn(self, session: aiohttp.ClientSession, things: Sequence[Thing]) -> None:
        asked = in_octets(things)
        headers = {**asked.headers, **FRESH}
        async with session.post(asked.path, data=asked.body, headers=headers) as reply:
            body = await reply.read()
            if reply.status != 200:
                raise RuntimeError(f"no right answers to be had: {body[:200]!r}")
            rows = vectors(reply.content_type, body, len(things))
        self.put(things, rows)

    def put(self, things: Iterable[Thing], rows: Iterable[Vector]) -> None:
        """Take vectors as right."""
        self._right.update(zip(map(_name, things), rows, strict=True))

    def right(self, question: Question, content_type: str, body: bytes) -> bool:
        """Whether an answer holds the right vectors, each in its place."""
        try:
            rows = vectors(content_type, body, len(question.things))
        except (ValueError, KeyError, TypeError):
            return False
        if len(rows) != len(question.things):
            return False
        pairs = zip(question.things, rows, strict=True)
        return all(_close(self._right[_name(thing)], row) for thing, row in pairs)


def _close(right: Vector, row: Vector) -> bool:
    if right.shape != row.shape or not np.isfinite(row).all():
        return False
    return float(right @ row) >= TOLERANCE * float(np.linalg.norm(right) * np.linalg.norm(row)) > 0


def _name(thing: Thing) -> bytes:
    return sha256(thing.encode() if isinstance(thing, str) else b"\0" + thing).digest()
