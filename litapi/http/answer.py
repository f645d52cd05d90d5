"""Vectors → HTTP: JSON floats, base64, or raw bytes.

JSON is written by orjson straight from the float32 rows; base64 of a stored vector needs no numpy
at all. On a cache hit this is most of the work, so each path does as little as it can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import pybase64

from cache import Entry
from litapi.errors import ServiceError
from litapi.http.pace import Pace

Row = np.ndarray[Any, np.dtype[np.float32]]
JSON = (b"content-type", b"application/json")
OCTETS = (b"content-type", b"application/octet-stream")
USUAL = {b"": False, b"*/*": False, JSON[1]: False, OCTETS[1]: True}
MANY = 64  # rows of numbers that are written in one turn


@dataclass(slots=True)
class Answer:
    """What goes back: status, body, headers as raw pairs."""

    body: bytes
    status: int = 200
    headers: list[tuple[bytes, bytes]] = field(default_factory=lambda: [JSON])
    hits: int = 0  # vectors in it, where all of them came from this process's memory
    _lines: bytes = field(default=b"", repr=False, compare=False)

    @classmethod
    def json(cls, content: Any, status: int = 200) -> Answer:
        """`content` as JSON; float32 arrays are written as their shortest decimals."""
        return cls(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), status, [JSON])

    @classmethod
    async def json_in_turns(cls, content: Any) -> Answer:
        """The same; long lists in it are written in turns with other requests."""
        parts: list[bytes] = []
        await _write(content, parts, Pace())
        return cls(b"".join(parts), 200, [JSON])

    def lines(self) -> bytes:
        """Headers and content length as HTTP/1.1 has them; rendered when first asked for."""
        if not self._lines:
            length = b"content-length: %d\r\n" % len(self.body)
            self._lines = b"\r\n".join([*map(b": ".join, self.headers), length])
        return self._lines

    @classmethod
    def error(cls, error: ServiceError, items: list[dict[str, Any]] | None = None) -> Answer:
        body = {
            "message": error.message,
            "type": error.type,
            "code": error.code,
            "param": error.param,
        }
        content = {"error": {**body, "items": items} if items else body}
        try:
            answer = cls.json(content, error.status)
        except TypeError:  # a name that the client chose is no text, such as half an emoji
            answer = cls.json(_writable(content), error.status)
        if error.retry_after is not None:
            answer.headers.append((b"retry-after", b"%d" % error.retry_after))
        if error.allow:
            answer.headers.append((b"allow", ", ".join(error.allow).encode()))
        for challenge in error.challenges:  # a line each: Chromium reads no second one in a line
            answer.headers.append((b"www-authenticate", challenge.encode()))
        return answer

    @classmethod
    def raw(cls, entries: Sequence[Entry], vectors: Vectors) -> Answer:
        """Rows of little-endian float32, one after another, their shape in the headers."""
        answer = cls(b"".join(vectors.octets(e) for e in entries), headers=[OCTETS])
        shape = b"%d,%d" % (len(entries), vectors.dimension)
        answer.headers += [(b"x-embedding-shape", shape), (b"x-embedding-dtype", b"float32-le")]
        return answer


async def _write(content: Any, parts: list[bytes], pace: Pace) -> None:
    if isinstance(content, dict) and content:
        for number, (name, value) in enumerate(content.items()):
            parts += [b"," if number else b"{", orjson.dumps(name), b":"]
            await _write(value, parts, pace)
        parts.append(b"}")
    elif isinstance(content, list) and len(content) > MANY:
        for at in range(0, len(content), MANY):
            some = orjson.dumps(content[at : at + MANY], option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
            parts += [b"," if at else b"[", some]
            await pace.rest()
        parts.append(b"]")
    else:
        parts.append(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY))


def _writable(content: Any) -> Any:
    """The same with a question mark for each character that UTF-8 cannot write."""
    if isinstance(content, dict):
        return {name: _writable(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_writable(one) for one in content]
    return content.encode(errors="replace").decode() if isinstance(content, str) else content


class Vectors:
    """Writes stored vectors in the form a request asked for, cut to its dimensions."""

    __slots__ = ("base64", "cut", "dimension")

    def __init__(self, encoding_format: str, dimensions: int | None, full: int) -> None:
        self.base64 = encoding_format == "base64"
        self.dimension = dimensions or full
        self.cut = self.dimension < full

    def row(self, entry: Entry) -> Row:
        """The vector, unit length also after a cut."""
        vector: Row = np.frombuffer(entry.vector, "<f4")
        if not self.cut:
            return vector
        head = vector[: self.dimension].astype(np.float64)
        norm = float(np.linalg.norm(head))
        row: Row = np.ascontiguousarray(head / norm if norm > 0 else head, np.float32)
        return row

    def octets(self, entry: Entry) -> bytes:
        return self.row(entry).tobytes() if self.cut else entry.vector

    def form(self, entry: Entry | None) -> Row | str | None:
        if entry is None:
            return None
        if self.base64:
            return pybase64.b64encode_as_string(self.octets(entry) if self.cut else entry.vector)
        return self.row(entry)


def wants_octets(accept: bytes) -> bool:
    """Whether raw rows are preferred to JSON, by the value of `Accept`."""
    if accept in USUAL:
        return USUAL[accept]
    accept = accept.lower()
    return OCTETS[1] in accept and _prefers_octets(accept.decode("latin-1"))


def _prefers_octets(accept: str) -> bool:
    """By the weights of the two forms, and where they weigh the same by what is named first."""
    weights: dict[str, float] = {}
    for entry in accept.split(","):
        name, *parameters = (part.strip() for part in entry.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        weights.setdefault(name, _weight(weight))
    octets = weights.get("application/octet-stream", 0.0)
    if "application/json" not in weights:
        wide = weights.get("application/*", weights.get("*/*", 0.0))
        return octets > 0 and octets >= wide
    json = weights["application/json"]
    named = list(weights)
    first = named.index("application/octet-stream") < named.index("application/json")
    return octets > json or (octets == json > 0 and first)


def _weight(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 1.0
