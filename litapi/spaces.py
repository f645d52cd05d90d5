"""`python -m litapi compare-spaces URL URL`: may vectors of two servers lie in one index?

Each says which space its vectors are from, if it is siglit; both then embed the same texts and
pictures. A server of another make is asked in OpenAI's form, and says nothing of its space.

A cosine tells whether an item has the same vector at both. Two models of one size agree in nothing
and may still find the same things, so it decides; what is found is held against it, for in a crowd
of likenesses a small difference is enough to change that.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from litapi.arguments import ArgumentError, arguments
from litapi.client import Client, RequestRefused
from litapi.demo.caption import STRANGERS
from litapi.demo.heldout import pictures, yardstick
from litapi.demo.judge import Vectors
from litapi.messages import KINDS, Kind
from litapi.quality.source import Source, SourceError

MOST = 256  # items of a kind
SCENES = 48
# int8 beside float32 keeps a median of 0.9999 and, of a text that the demo never learnt, 0.994
MEDIAN, LEAST = 0.995, 0.97  # cosines of the items' two vectors
SHARED = 0.8  # of the nearest neighbours
NEAREST = 10
FOREIGN = frozenset({200, 404, 405})  # what another program says to GET /info
NAMES = {"text": "texts", "image": "pictures"}
Items = Sequence[str | bytes]  # texts; paths or bytes of pictures


@dataclass(frozen=True, slots=True)
class Agreement:
    """`cosine` is (n,), of the two vectors of each item. `shared` is the part of each item's
    nearest neighbours that both servers name, each by its own vectors."""

    cosine: npt.NDArray[np.float64]
    shared: float

    @classmethod
    def of(cls, one: Vectors, other: Vectors) -> Self:
        """(n, dim) unit vectors of the same items in the same order."""
        cosine = (one.astype(np.float64) * other).sum(axis=-1)
        return cls(cosine, shared(_apart(one @ one.T), _apart(other @ other.T)))

    @property
    def passed(self) -> bool:
        """Whether the two are one space, as far as these items tell."""
        alike = np.median(self.cosine) >= MEDIAN and self.least >= LEAST
        return bool(alike and self.shared >= SHARED)

    @property
    def least(self) -> float:
        """The least cosine; NaN where a vector is none."""
        return float(self.cosine.min())


def shared(one: Vectors, other: Vectors) -> float:
    """The part of the nearest columns of each row that two matrices of similarities agree on."""
    many = max(1, min(NEAREST, one.shape[1] // 4))
    nearest = zip(*(np.argsort(-scores, axis=1)[:, :many] for scores in (one, other)), strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) / many for a, b in nearest]))


def _apart(scores: Vectors) -> Vectors:
    np.fill_diagonal(scores, -np.inf)
    return scores


def _side(url: str, key: str | None, stack: ExitStack) -> Source:
    """Ask a server who it is; its connections are closed with `stack`."""
    client = stack.enter_context(Client(url, key, priority="bulk"))
    try:
        return Source.served(url, client)
    except RequestRefused as refusal:
        if refusal.status in FOREIGN:
            return Source.remote(url, key)
        raise SourceError(f"{url}: {refusal}") from None


@dataclass(frozen=True, slots=True)
class Pair:
    """What both servers made of the items of one kind that both took, row by row."""

    kind: Kind
    items: Items
    vectors: tuple[Vectors, Vectors]

    @classmethod
    def of(cls, kind: Kind, items: Items, sides: Sequence[Source]) -> Self:
        """Raises ClientError, SourceError."""
        one, other = (side.ask(kind, items) for side in sides)
        refused = one.errors | other.errors
        good = [place for place in range(len(items)) if place not in refused]
        if not good:
            raise SourceError(f"all {NAMES[kind]} were refused, the first: {refused[0]}")
        if refused:
            print(f"{len(refused)} {NAMES[kind]} were refused")
        vectors = (one.vectors[good], other.vectors[good])
        return cls(kind, [items[place] for place in good], vectors)

    def called(self, place: int) -> str:
        item = self.items[place]
        if isinstance(item, bytes):
            return f"number {place + 1}"
        return repr(item[:60] if self.kind == "text" else Path(item).name)


def compare(
    urls: Sequence[str], keys: Sequence[str | None], paths: Sequence[Path], verbose: bool
) -> bool:
    """Print how far two servers agree; whether their vectors may be mixed.

    The items under `paths` are the sample, or drawn ones. Raises SourceError, quality's too, and
    ClientError: the text is the line that says why.
    """
    sample = _sample(paths)
    with ExitStack() as stack:
        sides = [_side(url, key, stack) for url, key in zip(urls, keys, strict=True)]
        for side in sides:
            print(f"{side.url}: space {side.space or 'not told'}, {side.name}, {side.about}")
        pairs = {kind: Pair.of(kind, items, sides) for kind, items in sample.items() if items}
    passed, sentence = _verdict(sides, pairs, verbose)
    print(f"{'They may be mixed' if passed else 'They may not be mixed'}: {sentence}.")
    return passed


def _verdict(
    sides: Sequence[Source], pairs: Mapping[Kind, Pair], verbose: bool
) -> tuple[bool, str]:
    sizes = sorted({vectors.shape[1] for pair in pairs.values() for vectors in pair.vectors})
    if len(sizes) > 1:
        return False, f"some vectors have {sizes[0]} numbers and some {sizes[-1]}"
    found = {kind: Agreement.of(*pair.vectors) for kind, pair in pairs.items()}
    for kind, agreement in found.items():
        _show(pairs[kind], agreement, verbose)
    if len(pairs) == len(KINDS):
        texts, images = (pairs[kind].vectors for kind in KINDS)
        scores = (text @ image.T for text, image in zip(texts, images, strict=True))
        print(f"pictures found by text: {shared(*scores):.1%} of the nearest are the same")
    proven = sides[0].space is not None and sides[0].space == sides[1].space
    unlike = " and ".join(NAMES[kind] for kind, one in found.items() if not one.passed)
    if unlike:
        blame = "; both say the same space, so one serves it wrong" if proven else ""
        return False, f"{unlike} do not have the same vectors at both{blame}"
    least = f"the least cosine is {min(one.least for one in found.values()):.5f}"
    if proven:
        return True, f"they are of one space, and {least}"
    if len(found) < len(KINDS):
        return False, "they do not say the same space, and a sample of one kind cannot prove it"
    return True, f"they do not say the same space, yet as far as this sample tells {least}"


def _show(pair: Pair, agreement: Agreement, verbose: bool) -> None:
    cosine, worst = agreement.cosine, int(agreement.cosine.argmin())
    print(
        f"{len(cosine)} {NAMES[pair.kind]}: cosine {np.median(cosine):.5f} (median), "
        f"{agreement.least:.5f} (least, {pair.called(worst)}); "
        f"{agreement.shared:.1%} of their nearest are the same"
    )
    for place in range(len(cosine)) if verbose else ():
        print(f"      {cosine[place]:.5f}  {pair.called(place)}")


def _sample(paths: Sequence[Path]) -> dict[Kind, list[str | bytes]]:
    """At most MOST of each kind, none twice."""
    if not paths:
        return _drawn()
    found: dict[Kind, dict[str | bytes, None]] = {kind: {} for kind in KINDS}
    for source in arguments(paths):
        room = MOST - len(found[source.kind])
        found[source.kind] |= dict.fromkeys(islice(source.items(), room))
    if not any(found.values()):
        raise ArgumentError("--sample: there are neither texts nor pictures")
    return {kind: list(items) for kind, items in found.items()}


def _drawn() -> dict[Kind, list[str | bytes]]:
    """Drawn scenes with their captions; capitals and other things show what a tokenizer does."""
    scenes = yardstick(SCENES)
    captions = [scene.caption() for scene in scenes]
    images: list[str | bytes] = []
    for image in pictures(scenes, "yardstick"):
        image.save(buffer := io.BytesIO(), "PNG")
        images.append(buffer.getvalue())
    return {"text": [*captions, *STRANGERS, captions[0].upper()], "image": images}
