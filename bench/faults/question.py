"""Questions to the server, the ways a client may ask, and the right answers.

A question is encoded in advance, so that the client spends nothing while it loads the server.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.load.connection import Address, ask_once, head_of
from bench.load.photo import encoded
from bench.load.route import Wrong, rows
from bench.load.workload import MEDIA
from litapi.demo.drawing import Scene, captions, draw

Thing = str | bytes  # a text, or an encoded picture

JSON = {"content-type": "application/json"}
OCTETS = {"accept": "application/octet-stream"}
TEXT, IMAGE, OPENAI = "/embed_text", "/embed_image", "/v1/embeddings"
Vector = npt.NDArray[np.floating[Any]]
TOLERANCE = 0.9999
GROUP = 16
PATIENCE = 300.0  # seconds


@dataclass(frozen=True, slots=True)
class Question:
    """One request, and the things whose vectors it asks for, in order."""

    path: str
    body: bytes
    headers: Mapping[str, str]
    things: tuple[Thing, ...]

    def request(self, cache: str | None = None) -> bytes:
        """As it is sent, where said with a Cache-Control."""
        more = {"cache-control": cache} if cache else {}
        return head_of(self.path, len(self.body), {**self.headers, **more}) + self.body


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
    return replace(as_floats(things), headers={**JSON, **OCTETS})


def alone(things: Sequence[Thing]) -> Question:
    """The first thing by itself: a text as JSON, a picture as a raw body."""
    first = things[0]
    if isinstance(first, str):
        return _json(TEXT, [first], text=first)
    return Question(IMAGE, first, {"content-type": MEDIA[first[:2]], **OCTETS}, (first,))


WAYS = (alone, in_octets, in_openai_form, as_floats)


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
    scenes = (Scene.random(Random(f"{seed} {number}")) for number in range(many))
    found = dict.fromkeys(text for scene in scenes for text in captions(scene, seed=seed))
    return list(found)[:many]


def drawn_picture(
    seed: int | str, form: str = "PNG", canvas: tuple[int, int] | None = None
) -> bytes:
    """An encoded picture; each seed is a picture of its own."""
    return encoded(draw(Scene.random(Random(str(seed))), seed, canvas), form)


def drawn_pictures(many: int) -> list[bytes]:
    """Small ones, JPEG and PNG in turn."""
    return [drawn_picture(number, ("JPEG", "PNG")[number % 2]) for number in range(many)]


def photographs(many: int) -> list[bytes]:
    """JPEGs large enough that decoding them, and not asking for them, is the work."""
    return [drawn_picture(f"large {n}", "JPEG", (2000, 1500)) for n in range(many)]


class AnswerKey:
    """Thing → right vector, computed by the server itself before the fault.

    With `Cache-Control: no-store` they are neither read from a cache nor written to one. An answer
    is right when each of its vectors has a cosine of at least 0.9999 with the right one: batches of
    another size may change a vector by that much, and no more.
    """

    def __init__(self) -> None:
        self._right: dict[Thing, Vector] = {}

    async def learn(self, url: str, things: Iterable[Thing]) -> None:
        """Have the server compute those that are not known yet."""
        new = dict.fromkeys(thing for thing in things if thing not in self._right)
        for kind in (str, bytes):
            wanted = [thing for thing in new if isinstance(thing, kind)]
            for start in range(0, len(wanted), GROUP):
                group = wanted[start : start + GROUP]
                request = in_octets(group).request("no-store")
                reply = await ask_once(Address.of(url), request, PATIENCE)
                if reply.status != 200:
                    raise RuntimeError(f"no right answers to be had: {reply.body[:200]!r}")
                self.put(group, rows(reply.head, reply.body))

    def put(self, things: Iterable[Thing], vectors: Iterable[Vector]) -> None:
        self._right.update(zip(things, vectors, strict=True))

    def right(self, question: Question, head: bytes, body: bytes) -> bool:
        """Whether an answer holds the right vectors, each in its place."""
        try:
            found = rows(head, body)
        except Wrong:
            return False
        if len(found) != len(question.things):
            return False
        pairs = zip(question.things, found, strict=True)
        return all(_close(self._right[thing], one) for thing, one in pairs)


def _close(right: Vector, found: Vector) -> bool:
    if right.shape != found.shape or not np.isfinite(found).all():
        return False
    one, other = right.astype(np.float64), found.astype(np.float64)
    return float(one @ other) >= TOLERANCE * float(np.linalg.norm(one) * np.linalg.norm(other)) > 0
