"""Questions to the server: the ways a client may ask.

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

from bench.load.workload import MEDIA
from litapi.demo.drawing import Scene, captions, draw

Thing = str | bytes  # a text, or an encoded picture

JSON = {"content-type": "application/json"}
OCTETS = {"accept": "application/octet-stream"}
TEXT, IMAGE, OPENAI = "/embed_text", "/embed_image", "/v1/embeddings"


@dataclass(frozen=True, slots=True)
class Question:
    """One request, and the things whose vectors it asks for, in order."""

    path: str
    body: bytes
    headers: Mapping[str, str]
    things: tuple[Thing, ...]


def _plain(thing: Thing) -> str:
    return thing if isinstance(thing, str) else base64.b64encode(thing).decode()


def _json(path: str, things: Sequence[Thing], **fields: Any) -> Question:
    return Question(path, json.dumps(fields).encode(), JSON, tuple(things))


def in_openai_form(things: Sequence[Thing]) -> Question:
    """Texts and pictures (as data URIs) in one list, answered in base64."""
    parts = [
        one if isinstance(one, str) else f"data:{MEDIA[one[:2]]};base64,{_plain(one)}"
        for one in things
    ]
    return _json(OPENAI, things, input=parts, encoding_format="base64")


def as_floats(things: Sequence[Thing]) -> Question:
    """A list on the tower's own route, answered as numbers."""
    if isinstance(things[0], str):
        return _json(TEXT, things, texts=things)
    return _json(IMAGE, things, images=[_plain(thing) for thing in things])


def in_octets(things: Sequence[Thing]) -> Question:
    """The same, answered as raw bytes."""
    asked = as_floats(things)
    return Question(asked.path, asked.body, {**JSON, **OCTETS}, asked.things)


def alone(things: Sequence[Thing]) -> Question:
    """The first thing by itself: a text as JSON, a picture as a raw body."""
    first = things[0]
    if isinstance(first, str):
        return _json(TEXT, [first], text=first)
    return Question(IMAGE, first, {"content-type": MEDIA[first[:2]], **OCTETS}, (first,))


WAYS: tuple[Callable[[Sequence[Thing]], Question], ...] = (
    alone, in_octets, in_openai_form, as_floats,
)  # fmt: skip


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
