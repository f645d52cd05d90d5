"""Is the body of an answer what was asked for: as many unit vectors as items, of one dimension?

Reads all the forms that the routes answer with. A `Wrong` is a failed point: its name stands in
the table of errors beside the statuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pybase64

from bench.load.connection import header
from bench.load.recording import Sample

Rows = np.ndarray[Any, np.dtype[np.float32]]
ROOM = 64 << 20  # bytes of bodies that each process keeps
TOLERANCE = 1e-3  # of the length; wide enough for a server that computes in bfloat16


class Wrong(Exception):
    """What is wrong with the body."""


class Judge:
    """Judges bodies one after another; the first good one settles the dimension."""

    def __init__(self, unit: bool = True) -> None:
        self.dimension = 0
        self._unit = unit

    def fault(self, head: bytes, body: bytes, items: int) -> str | None:
        """The name of what is wrong, or None."""
        try:
            self._judge(rows(head, body), items)
        except Wrong as wrong:
            return str(wrong)
        return None

    def _judge(self, vectors: Rows, items: int) -> None:
        if len(vectors) < items:
            raise Wrong("too-few-vectors")
        if len(vectors) > items:
            raise Wrong("too-many-vectors")
        if not np.isfinite(vectors).all():
            raise Wrong("not-finite")
        if self._unit and (abs(np.linalg.norm(vectors, axis=1) - 1) > TOLERANCE).any():
            raise Wrong("not-unit")
        self.dimension = self.dimension or vectors.shape[1]
        if vectors.shape[1] != self.dimension:
            raise Wrong("other-dimension")


class Shelf:
    """Bodies kept during a level and judged after it, so that judging never slows the traffic.

    All of them are kept while they fit; then every second, every fourth, and so on. `stride` says
    which, and it stands in every report.
    """

    def __init__(self, room: int = ROOM) -> None:
        self.stride = 1
        self._room = room
        self._seen = 0
        self._weight = 0
        self._kept: list[tuple[int, Sample, bytes, bytes]] = []

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, sample: Sample, head: bytes, body: bytes) -> None:
        """Keep this one, if it is its turn."""
        place, self._seen = self._seen, self._seen + 1
        if place % self.stride:
            return
        self._kept.append((place, sample, head, body))
        self._weight += len(body)
        if self._weight > self._room:
            self._thin()

    def _thin(self) -> None:
        self.stride *= 2
        self._kept = [one for one in self._kept if one[0] % self.stride == 0]
        self._weight = sum(len(body) for *_, body in self._kept)

    def judge(self, judge: Judge) -> None:
        """Note in each sample what is wrong with its body, if anything."""
        for _, sample, head, body in self._kept:
            sample.checked = True
            sample.error = judge.fault(head, body, sample.items)


def rows(head: bytes, body: bytes) -> Rows:
    """The vectors of an answer.

    Raises:
        Wrong: it holds none that can be read.
    """
    try:
        if header(head, b"content-type").startswith(b"application/octet-stream"):
            many, dimension = header(head, b"x-embedding-shape").split(b",")
            return np.frombuffer(body, "<f4").reshape(int(many), int(dimension))
        return _stacked([_vector(one) for one in _found(orjson.loads(body))])
    except (ValueError, TypeError, KeyError):
        raise Wrong("unreadable-body") from None


def _found(content: dict[str, Any]) -> Sequence[Any]:
    if "data" in content:
        return [row["embedding"] for row in sorted(content["data"], key=lambda row: row["index"])]
    return content["embeddings"] if "embeddings" in content else [content["embedding"]]


def _vector(form: Any) -> Rows:
    if form is None:
        raise Wrong("too-few-vectors")
    if isinstance(form, str):
        return np.frombuffer(pybase64.b64decode(form, validate=True), "<f4")
    return np.asarray(form, np.float32)


def _stacked(vectors: list[Rows]) -> Rows:
    if any(one.ndim != 1 or not one.size for one in vectors):
        raise Wrong("unreadable-body")
    if len({one.size for one in vectors}) > 1:
        raise Wrong("other-dimension")
    return np.stack(vectors) if vectors else np.empty((0, 0), np.float32)
