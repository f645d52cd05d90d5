"""Vectors → HTTP: JSON floats, base64, or raw bytes; float32, or in fewer bytes.

JSON is written by orjson straight from the float32 rows; base64 of a stored vector needs no numpy
at all. On a cache hit this is most of the work, so each path does as little as it can.

The cache keeps float32, so every type is made of the same stored numbers; a vector that is cut to
fewer dimensions is cut and renormalised first. All rows of an answer are turned at once.

    float16   each number rounded to half precision
    int8      round(number / scale); scale is the vector's greatest |number| / 127
    binary    a bit for each number, 1 where it is above zero; eight a byte, the first one highest

Other makers have two more: uint8 is int8 + 128, and their binary is ours - 128.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import orjson
import pybase64

from cache import Entry
from litapi.errors import ServiceError
from litapi.http.pace import Pace, paced

Row = np.ndarray[Any, np.dtype[np.float32]]
Codes = np.ndarray[Any, np.dtype[Any]]
JSON = (b"content-type", b"application/json")
OCTETS = (b"content-type", b"application/octet-stream")
USUAL = {b"": False, b"*/*": False, JSON[1]: False, OCTETS[1]: True}
MANY = 64  # rows of numbers that are written in one turn
GREATEST: Final = 127  # -128 stays unused, so that a vector and its opposite have opposite codes


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
        body = {name: getattr(error, name) for name in ("message", "type", "code", "param")}
        content = {"error": {**body, "items": items} if items else body}
        try:
            answer = cls.json(content, error.status)
        except TypeError:  # a name that the client chose is no text, such as half an emoji
            text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
            answer = cls(text.encode(errors="replace"), error.status, [JSON])
        if error.retry_after is not None:
            answer.headers.append((b"retry-after", b"%d" % error.retry_after))
        if error.allow:
            answer.headers.append((b"allow", ", ".join(error.allow).encode()))
        for challenge in error.challenges:  # a line each: Chromium reads no second one in a line
            answer.headers.append((b"www-authenticate", challenge.encode()))
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


class Vectors:
    """Writes stored vectors in the form a request asked for, cut to its dimensions."""

    __slots__ = ("base64", "cut", "dimension", "type")

    def __init__(
        self, encoding_format: str, dimensions: int | None, full: int, type_: str = "float32"
    ) -> None:
        self.base64 = encoding_format == "base64"
        self.dimension = dimensions or full
        self.cut = self.dimension < full
        self.type = type_

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

    async def written(self, found: Sequence[Entry | None]) -> tuple[list[Any], list[Any]]:
        """What stands for each vector in JSON, and the scale of each where the type has any; None
        for each refused item."""
        return (await paced(self.form, found), []) if self.type == "float32" else self.small(found)

    def small(self, found: Sequence[Entry | None]) -> tuple[list[Any], list[Any]]:
        """The same of a type with fewer bytes."""
        codes, scales = self._coded([entry for entry in found if entry is not None])
        forms = [pybase64.b64encode_as_string(c.tobytes()) for c in codes] if self.base64 else codes
        placed = _placed(found, forms)
        return placed, [] if scales is None else _placed(found, scales)

    def raw(self, entries: Sequence[Entry]) -> Answer:
        """The vectors one after another, then the scales as float32; headers say how to read it."""
        answer = Answer(b"", headers=[OCTETS])
        if self.type == "float32":
            answer.body, width, scales = b"".join(map(self.octets, entries)), self.dimension, None
        else:
            codes, scales = self._coded(entries)
            answer.body, width = codes.tobytes(), codes.shape[1]
        shape = b"%d,%d" % (len(entries), width)
        answer.headers += [(b"x-embedding-shape", shape), (b"x-embedding-dtype", WIRE[self.type])]
        if scales is not None:
            answer.body += scales.tobytes()
            answer.headers.append((b"x-embedding-scales", b"float32-le"))
        return answer

    def _coded(self, entries: Sequence[Entry]) -> tuple[Codes, Row | None]:
        return CODED[self.type](np.stack([self.row(entry) for entry in entries]))


def _placed(found: Sequence[Entry | None], values: Iterable[Any]) -> list[Any]:
    following = iter(values)
    return [None if entry is None else next(following) for entry in found]


def _int8(rows: Row) -> tuple[Codes, Row]:
    greatest = np.abs(rows).max(axis=1)
    scales = (greatest / GREATEST).astype("<f4")
    scales[scales == 0] = 1  # a vector of zeros
    codes = np.rint(rows / scales[:, None]).clip(-GREATEST, GREATEST)
    return codes.astype(np.int8), scales


def _binary(rows: Row) -> Codes:
    return np.packbits(rows > 0, axis=1)


CODED: Final[dict[str, Callable[[Row], tuple[Codes, Row | None]]]] = {
    "float16": lambda rows: (rows.astype("<f2"), None),
    "int8": _int8,
    "binary": lambda rows: (_binary(rows), None),
    "uint8": lambda rows: (_int8(rows)[0].view(np.uint8) ^ 0x80, None),
    "signed_binary": lambda rows: ((_binary(rows) ^ 0x80).view(np.int8), None),
}
WIRE: Final = {
    "float32": b"float32-le", "float16": b"float16-le", "int8": b"int8", "binary": b"binary",
}  # fmt: skip


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
    if "application/json" not in weights:  # then last, and with the weight of whatever may come
        weights["application/json"] = weights.get("application/*", weights.get("*/*", 0.0))
    forms = [name for name in weights if name in ("application/json", "application/octet-stream")]
    best = max(forms, key=weights.__getitem__)
    return best == "application/octet-stream" and weights[best] > 0


def _weight(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 1.0
