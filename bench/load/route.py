"""How a job becomes the bytes of a request, and whether its answer is what was asked for.

    v1     POST /v1/embeddings, OpenAI form, vectors as base64
    embed  POST /embed_text and /embed_image, siglit's own form, vectors as JSON numbers
    raw    as v1, answered with raw float32 rows; a single picture goes to /embed_image as it is

The paths can be others, so that plain Flask services are driven by the same generator. The answer
must be as many unit vectors as items, of one dimension, in any form that the routes answer with. A
`Wrong` is a failed point: its name stands in the table of errors beside the statuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import orjson
import pybase64

from bench.load.connection import Address, header
from bench.load.recording import Sample
from bench.load.workload import Item, Job

Form = Literal["v1", "embed", "raw"]
PATHS = {
    "v1": ("/v1/embeddings", "/v1/embeddings"),
    "embed": ("/embed_text", "/embed_image"),
    "raw": ("/v1/embeddings", "/v1/embeddings"),
}
JSON = b"application/json"
OCTETS = b"application/octet-stream"
Rows = np.ndarray[Any, np.dtype[np.float32]]
ROOM = 64 << 20  # bytes of bodies that each process keeps
TOLERANCE = 1e-3  # of the length; wide enough for a server that computes in bfloat16


@dataclass(frozen=True, slots=True)
class Route:
    """Form, paths and headers of all requests of a run."""

    address: Address
    form: Form = "v1"
    text_path: str | None = None
    image_path: str | None = None
    model: str | None = None
    key: str | None = None
    headers: tuple[str, ...] = field(default=())  # more of them, "Name: value"

    def request(self, job: Job) -> bytes:
        body, media_type = self._body(job)
        return b"%b%b\r\ncontent-length: %d\r\n\r\n%b" % (
            self._head(job), media_type, len(body), body,
        )  # fmt: skip

    def path(self, job: Job) -> str:
        given = self.text_path if job.kind == "text" else self.image_path
        if given is None:
            given = "/embed_image" if self._bare(job) else PATHS[self.form][job.kind == "image"]
        return self.address.prefix + given

    def _bare(self, job: Job) -> bool:
        return self.form == "raw" and job.kind == "image" and len(job.items) == 1

    def _head(self, job: Job) -> bytes:
        address = self.address
        lines = [
            f"POST {self.path(job)} HTTP/1.1",
            f"host: {address.host}:{address.port}",
            f"accept: {(OCTETS if self.form == 'raw' else JSON).decode()}",
            *([f"authorization: Bearer {self.key}"] if self.key else []),
            *self.headers,
            "content-type: ",
        ]
        return "\r\n".join(lines).encode()

    def _body(self, job: Job) -> tuple[bytes, bytes]:
        if self._bare(job):
            return job.items[0].data, job.items[0].media_type.encode()
        if self.form == "embed":
            name = b'"text' if job.kind == "text" else b'"image'
            return b"{%b%b}" % (name, _value(job.items, b's":', b'":')), JSON
        fields = b',"model":%b' % orjson.dumps(self.model) if self.model else b""
        items = _value(job.items, b"", b"") if job.kind == "text" else _list(job.items)
        return b'{"input":%b,"encoding_format":"base64"%b}' % (items, fields), JSON


def _value(items: Sequence[Item], many: bytes, one: bytes) -> bytes:
    return many + _list(items) if len(items) > 1 else one + items[0].quoted


def _list(items: Sequence[Item]) -> bytes:
    return b"[%b]" % b",".join([item.quoted for item in items])


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
            vectors = rows(head, body)
        except Wrong as wrong:
            return str(wrong)
        if len(vectors) != items:
            return "too-few-vectors" if len(vectors) < items else "too-many-vectors"
        if not np.isfinite(vectors).all():
            return "not-finite"
        if self._unit and (abs(np.linalg.norm(vectors, axis=1) - 1) > TOLERANCE).any():
            return "not-unit"
        self.dimension = self.dimension or vectors.shape[1]
        return None if vectors.shape[1] == self.dimension else "other-dimension"


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
