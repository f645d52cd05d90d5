"""Recall on pictures and captions, as it is published for SigLIP 2: text → image and image → text.

A folder holds pictures with a .txt of the same name beside them, one caption a line; or COCO as it
is downloaded, with Karpathy's split beside the folders of pictures:

    dataset_coco.json     val2014/COCO_val2014_000000391895.jpg …

A picture may have several captions. An image finds its text when any of them is among the first k,
and each caption is asked for its picture. A tie counts against the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from litapi.quality.pairs import beside
from litapi.quality.source import Array, Source

KARPATHY, SPLIT = "dataset_coco.json", "test"
FIRST = (1, 5, 10)
STEP = 256  # items embedded between two moves of the progress bar


class PairsError(ValueError):
    """A folder that cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Recall:
    """Shares in 0…1 for each k of FIRST."""

    text_to_image: tuple[float, ...]
    image_to_text: tuple[float, ...]

    @classmethod
    def of(cls, texts: Array, images: Array, owners: Sequence[int]) -> Self:
        """Unit vectors (texts, dim) and (images, dim); `owners` is each text's image."""
        scores, own = texts @ images.T, np.asarray(owners)
        own_scores = scores[np.arange(len(own)), own]
        # of each text, how many other images do at least as well as its own
        beaten = (~(scores < own_scores[:, None])).sum(axis=1) - 1
        best = np.full(len(images), -np.inf)
        np.maximum.at(best, own, own_scores)
        # of each image, how many foreign texts do at least as well as its best caption
        foreign = ~(scores < best) & (own[:, None] != np.arange(len(images)))
        return cls(_shares(beaten), _shares(foreign.sum(axis=0)))

    def lines(self) -> Iterator[str]:
        """As a table."""
        yield f"{'':<14}" + "".join(f"{f'recall@{k}':>11}" for k in FIRST)
        for name, shares in (
            ("text → image", self.text_to_image),
            ("image → text", self.image_to_text),
        ):
            yield f"{name:<14}" + "".join(f"{share:>11.1%}" for share in shares)


def _shares(ranks: npt.NDArray[np.int64]) -> tuple[float, ...]:
    return tuple(float((ranks < k).mean()) for k in FIRST)


@dataclass(frozen=True, slots=True)
class Captioned:
    """Pictures and the captions that belong to them; `owners` is each caption's picture."""

    paths: list[Path]
    captions: list[str]
    owners: list[int]

    @classmethod
    def of(cls, folder: Path) -> Self:
        """The pictures of a folder, or COCO's test split. Raises PairsError."""
        listed = _karpathy(folder) if (folder / KARPATHY).is_file() else _with_captions(folder)
        found = [(path, captions) for path, captions in listed if captions]
        if not found:
            raise PairsError(
                f"--retrieval: {folder} holds no picture with a .txt beside it, and no {KARPATHY}"
            )
        owners = [i for i, (_, captions) in enumerate(found) for _ in captions]
        flat = [caption for _, captions in found for caption in captions]
        return cls([path for path, _ in found], flat, owners)

    def recall(self, source: Source) -> Recall:
        """Embed all of it, with a progress bar."""
        texts = _embedded(source.texts, self.captions, "captions")
        images = _embedded(lambda some: source.pictures(_read(some)), self.paths, "pictures")
        return Recall.of(texts, images, self.owners)


def _with_captions(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    if not folder.is_dir():
        raise PairsError(f"--retrieval: {folder} is not a folder")
    for path in beside(folder):
        yield path, _lines(path.with_suffix(".txt"))


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except ValueError:
        raise PairsError(f"--retrieval: {path.name} is not UTF-8") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _karpathy(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    try:
        listed = json.loads((folder / KARPATHY).read_bytes())["images"]
        for one in listed:
            if one["split"] == SPLIT:
                path = folder / one["filepath"] / one["filename"]
                yield path, [sentence["raw"].strip() for sentence in one["sentences"]]
    except (KeyError, TypeError, ValueError) as error:
        raise PairsError(
            f"--retrieval: {KARPATHY} is not laid out as Karpathy's split ({error!r})"
        ) from None


def _read(paths: Sequence[Path]) -> list[bytes]:
    try:
        return [path.read_bytes() for path in paths]
    except OSError as error:
        raise PairsError(f"--retrieval: {error.filename} cannot be read") from None


T = TypeVar("T")


def _embedded(embed: Callable[[Sequence[T]], Array], items: Sequence[T], what: str) -> Array:
    rows = []
    with tqdm(total=len(items), desc=what, unit="item", leave=False, disable=None) as bar:
        for start in range(0, len(items), STEP):
            some = items[start : start + STEP]
            rows.append(embed(some))
            bar.update(len(some))
    return np.concatenate(rows)
