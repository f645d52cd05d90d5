"""Questions to the server, and how their answers are read: the ways a client may ask.

A question is encoded in advance, so that the client spends nothing while it loads the server. The
ways take turns: JSON and raw bodies, floats, base64 and raw bytes, one item and several, texts and
pictures together.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from litapi.demo.drawing import Scene, captions, draw

Thing = str | bytes  # a text, or an encoded picture
Vector = npt.NDArray[np.float64]

JSON = {"content-type": "application/json"}
OCTETS = {"accept": "application/octet-stream"}
MEDIA = {b"\xff\xd8": "image/jpeg", b"\x89P": "image/png"}


@dataclass(frozen=True, slots=True)
class Question:
    """One request, and the things whose vectors it asks for, in order."""

    path: str
    body: bytes
    headers: Mapping[str, str]
    things: tuple[Thing, ...]


def media_type(picture: bytes) -> str:
    """What a picture says it is."""
    return MEDIA[picture[:2]]


def uri(picture: bytes) -> str:
    """A picture as a data URI."""
    return f"data:{media_type(picture)};base64,{base64.b64encode(picture).decode()}"


def _plain(thing: Thing) -> str:
    return thing if isinstance(thing, str) else base64.b64encode(thing).decode()


def _json(path: str, things: Sequence[Thing], **fields: Any) -> Question:
    return Question(path, json.dumps(fields).encode(), JSON, tuple(things))


def in_openai_form(things: Sequence[Thing]) -> Question:
    """Texts and pictures in one list, answered in base64."""
    parts = [thing if isinstance(thing, str) else uri(thing) for thing in things]
    return _json("/v1/embeddings", things, input=parts, encoding_format="base64")


def as_floats(things: Sequence[Thing]) -> Question:
    """A list on the tower's own route, answered as numbers."""
    if isinstance(things[0], str):
        return _json("/embed_text", things, texts=things)
    return _json("/embed_image", things, images=[_plain(thing) for thing in things])


def in_octets(things: Sequence[Thing]) -> Question:
    """The same, answered as raw bytes."""
    asked = as_floats(things)
    return Question(asked.path, asked.body, {**JSON, **OCTETS}, asked.things)


def alone(things: Sequence[Thing]) -> Question:
    """The first thing by itself: a text as JSON, a picture as a raw body."""
    first = things[0]
    if isinstance(first, str):
        return _json("/embed_text", [first], text=first)
    return Question("/embed_image", first, {"content-type": media_type(first), **OCTETS}, (first,))


WAYS: tuple[Callable[[Sequence[Thing]], Question], ...] = (
    alone,
    in_octets,
    in_openai_form,
    as_floats,
)


def asked(things: Sequence[Thing], group: int = 3) -> list[Question]:
    """A question for each thing; the ways take turns, and those with lists ask for a few more."""
    doubled = [*things, *things]
    return [WAYS[i % len(WAYS)](doubled[i : i + group]) for i in range(len(things))]


def mixed(texts: Sequence[str], pictures: Sequence[bytes]) -> list[Question]:
    """Questions about all of them, of one kind and of both, in an order of their own."""
    both = [in_openai_form(pair) for pair in zip(texts, pictures, strict=False)]
    questions = [*asked(texts), *asked(pictures), *both]
    Random(7).shuffle(questions)
    return questions


def drawn_texts(many: int, seed: int = 0) -> list[str]:
    """Captions, all different."""
    found: dict[str, None] = {}
    number = 0
    while len(found) < many:
        found.update(dict.fromkeys(captions(Scene.random(Random(f"{seed} {number}")), seed=seed)))
        number += 1
    return list(found)[:many]


def drawn_picture(
    seed: int | str, form: str = "PNG", canvas: tuple[int, int] | None = None
) -> bytes:
    """An encoded picture; each seed is a picture of its own."""
    buffer = io.BytesIO()
    draw(Scene.random(Random(str(seed))), seed, canvas).save(buffer, form)
    return buffer.getvalue()


def drawn_pictures(many: int) -> list[bytes]:
    """Small ones, JPEG and PNG in turn."""
    return [drawn_picture(number, ("JPEG", "PNG")[number % 2]) for number in range(many)]


def photographs(many: int) -> list[bytes]:
    """JPEGs large enough that decoding them, and not asking for them, is the work."""
    return [drawn_picture(f"large {n}", "JPEG", (2000, 1500)) for n in range(many)]


def vectors(content_type: str, body: bytes, count: int) -> list[Vector]:
    """The vectors of an answer in whatever form it has.

    Raises:
        ValueError, KeyError, TypeError: it holds none.
    """
    if content_type.startswith("application/octet-stream"):
        return list(np.frombuffer(body, "<f4").astype(np.float64).reshape(count, -1))
    found = json.loads(body)
    if "data" in found:
        return [_vector(row["embedding"]) for row in found["data"]]
    rows = found["embeddings"] if "embeddings" in found else [found["embedding"]]
    return [_vector(row) for row in rows]


def _vector(row: str | list[float]) -> Vector:
    if isinstance(row, str):
        return np.frombuffer(base64.b64decode(row), "<f4").astype(np.float64)
    return np.asarray(row, np.float64)
