"""Published logits of a checkpoint, held against vectors from wherever they come.

The pictures are drawn, so a checkpoint is all that has to be at hand. Two things are added to what
was published that change no number: some texts have capitals, which SigLIP 2 lower-cases, and the
tall picture lies on its side with an EXIF orientation that puts it upright. A server that keeps
capitals or ignores EXIF fails here. Numbers and their sources are in golden.json.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image, ImageDraw

from litapi.quality.source import Source
from litapi.scoring import Array, Sigmoid

NUMBERS = Path(__file__).with_name("golden.json")
WIDER = (5e-3, 2e-2)  # image backends of transformers differ among themselves by about 2e-3
CATS_TOLERANCE = 5e-3  # published to a tenth of a percent, from older releases
STEP, DOT = 9, 6  # pixels
ORIENTATION, ON_ITS_SIDE = 0x0112, 6  # EXIF: turn by 90 degrees to the right before looking


Explain = Callable[["Golden", Array], str]  # logits as found → the reason


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that was looked at: its name, whether it holds, one public sentence, a table."""

    name: str
    passed: bool
    sentence: str
    table: tuple[str, ...] = ()
    logits: Array = field(default_factory=lambda: np.empty((0, 0)))  # as found: texts × pictures


@dataclass(frozen=True, slots=True)
class Shape:
    height: int
    width: int
    what: str = "disc"

    def __str__(self) -> str:
        return f"{self.what} {self.height} × {self.width}"


@dataclass(frozen=True, slots=True)
class Golden:
    """The published numbers of one checkpoint. `logits` is empty where nobody published any."""

    texts: tuple[str, ...]
    shapes: tuple[Shape, ...]
    tolerance: float
    logits: Array  # texts × pictures
    cats: dict[str, float]  # probabilities of texts

    @classmethod
    def of(cls, name: str) -> Self:
        """The numbers of the checkpoint called so, by the hub's name or a folder's."""
        shared = json.loads(NUMBERS.read_text())
        own = shared["checkpoints"].get(name.rstrip("/").rpartition("/")[2].lower(), {})
        rows = own.get("logits", {}).get("rows", [])
        return cls(
            texts=tuple(shared["texts"]),
            shapes=tuple(Shape(*one) for one in own.get("pictures", shared["pictures"])),
            tolerance=shared["tolerance"],
            logits=np.array(rows),
            cats={one["text"]: one["probability"] for one in own.get("cats", [])},
        )

    @property
    def empty(self) -> bool:
        return not (self.logits.size or self.cats)

    def verdicts(
        self, source: Source, photo: bytes | None = None, explain: Explain | None = None
    ) -> Iterator[Verdict]:
        """All that can be judged; a failure with its reason, where somebody can `explain` it.
        `photo` is the encoded picture of two cats, where the caller has it."""
        if self.logits.size:
            verdict = self.judge(source)
            yield verdict
            if not verdict.passed and explain is not None:
                yield Verdict("reason", False, explain(self, verdict.logits))
        if photo is not None:
            yield from self.judge_cats(source, photo)

    def judge(self, source: Source) -> Verdict:
        """Whether all logits are within the tolerance, absolute and relative."""
        texts, pictures = source.texts(self.texts), source.pictures(self.drawn())
        cosines = texts.astype(np.float64) @ pictures.T
        sigmoid, how = source.sigmoid, ""
        if sigmoid is None:
            scale, bias = np.polyfit(cosines.ravel(), self.logits.ravel(), 1)
            sigmoid = Sigmoid(scale, bias)
            how = f"; the server says no scale and bias, fitted {scale:.3f} and {bias:.3f}"
        found = sigmoid.logit(cosines)
        within = {
            t: int(np.isclose(found, self.logits, rtol=t, atol=t).sum())
            for t in (self.tolerance, *WIDER)
        }
        counts = ", ".join(f"{count} at {t:g}" for t, count in within.items())
        apart = float(np.abs(found - self.logits).max())
        sentence = (
            f"Of {found.size} published logits hold: {counts}; "
            f"the farthest is off by {apart:.1e}{how}."
        )
        passed = within[self.tolerance] == found.size
        return Verdict("golden", passed, sentence, self._table(found), found)

    def judge_cats(self, source: Source, photo: bytes) -> Iterator[Verdict]:
        for text, published in self.cats.items():
            if source.sigmoid is None:
                sentence = "The server says no scale and bias, so it has no probabilities."
                yield Verdict("cats", False, sentence)
                continue
            cosine = source.texts([text]).astype(np.float64) @ source.pictures([photo]).T
            found = float(source.sigmoid(cosine)[0, 0])
            sentence = f'"{text}": {found:.1%}, published {published:.1%}.'
            yield Verdict("cats", abs(found - published) <= CATS_TOLERANCE, sentence)

    def drawn(self) -> tuple[bytes, ...]:
        return tuple(map(encoded, self.shapes))

    def _table(self, found: Array) -> tuple[str, ...]:
        heads = "".join(f"{one!s:>22}" for one in self.shapes)
        rows = [
            f"{text:<52}" + "".join(f"{a:>12.4f} {b:>9.4f}" for a, b in zip(*pair, strict=True))
            for text, *pair in zip(self.texts, found, self.logits, strict=True)
        ]
        return (f"{'found, published':<52}{heads}", *rows)


def draw(shape: Shape) -> Image.Image:
    return {"disc": _disc, "dots": _dots}[shape.what](shape.height, shape.width)


def _disc(height: int, width: int) -> Image.Image:
    """Blue with a green outline on a red ground, as the published numbers describe it."""
    picture = Image.new("RGB", (width, height), "red")
    across, down, radius = width // 2, height // 2, min(width // 2, height // 2) // 8 * 7
    box = (across - radius, down - radius, across + radius, down + radius)
    ImageDraw.Draw(picture).ellipse(box, fill="blue", outline="green", width=width // 20)
    return picture


def _dots(height: int, width: int) -> Image.Image:
    """So fine that every filter makes something else of it when the picture is resized."""
    picture = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(picture)
    for down, across in product(range(0, height, STEP), range(0, width, STEP)):
        pen.ellipse((across, down, across + DOT, down + DOT), fill="blue")
    return picture


@functools.cache
def encoded(shape: Shape) -> bytes:
    """The picture as PNG; one that is not square lies on its side."""
    picture, exif = draw(shape), Image.Exif()
    if shape.height != shape.width:
        picture = picture.transpose(Image.Transpose.ROTATE_90)
        exif[ORIENTATION] = ON_ITS_SIDE
    file = io.BytesIO()
    picture.save(file, "PNG", exif=exif)
    return file.getvalue()
