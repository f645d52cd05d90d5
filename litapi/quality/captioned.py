"""Pictures and the captions that belong to them, as folders hold them.

A folder holds pictures with a .txt of the same name beside them, one caption a line; or COCO as it
is downloaded, with Karpathy's split beside the folders of pictures:

    dataset_coco.json     val2014/COCO_val2014_000000391895.jpg …
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from tqdm import tqdm

from litapi.quality.pairs import beside
from litapi.scoring import Array

KARPATHY, SPLIT = "dataset_coco.json", "test"
STEP = 256  # items embedded between two moves of the progress bar
T = TypeVar("T")


class PairsError(ValueError):
    """A folder that cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Captioned:
    """`owners` is each caption's picture; a picture may have several."""

    paths: list[Path]
    captions: list[str]
    owners: list[int]

    @classmethod
    def of(cls, folder: Path) -> Self:
        """The pictures of a folder, or COCO's test split. Raises PairsError."""
        listed = _karpathy(folder) if (folder / KARPATHY).is_file() else _with_captions(folder)
        found = [(path, captions) for path, captions in listed if captions]
        if not found:
            raise PairsError(f"{folder} holds no picture with a .txt beside it, and no {KARPATHY}")
        owners = [i for i, (_, captions) in enumerate(found) for _ in captions]
        flat = [caption for _, captions in found for caption in captions]
        return cls([path for path, _ in found], flat, owners)

    def embedded(
        self, texts: Callable[[Sequence[str]], Array], pictures: Callable[[Sequence[bytes]], Array]
    ) -> tuple[Array, Array]:
        """Captions and pictures as vectors, with a progress bar for each. Raises PairsError."""
        rows = _embedded(texts, self.captions, "captions")
        return rows, _embedded(lambda some: pictures(_read(some)), self.paths, "pictures")


def _with_captions(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    if not folder.is_dir():
        raise PairsError(f"{folder} is not a folder")
    for path in beside(folder):
        yield path, _lines(path.with_suffix(".txt"))


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except ValueError:
        raise PairsError(f"{path.name} is not UTF-8") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _karpathy(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    try:
        listed = json.loads((folder / KARPATHY).read_bytes())["images"]
        for one in listed:
            if one["split"] == SPLIT:
                path = folder / one["filepath"] / one["filename"]
                yield path, [sentence["raw"].strip() for sentence in one["sentences"]]
    except (KeyError, TypeError, ValueError) as error:
        raise PairsError(f"{KARPATHY} is not laid out as Karpathy's split ({error!r})") from None


def _read(paths: Sequence[Path]) -> list[bytes]:
    try:
        return [path.read_bytes() for path in paths]
    except OSError as error:
        raise PairsError(f"{error.filename} cannot be read") from None


def _embedded(embed: Callable[[Sequence[T]], Array], items: Sequence[T], what: str) -> Array:
    rows = []
    with tqdm(total=len(items), desc=what, unit="item", leave=False, disable=None) as bar:
        for start in range(0, len(items), STEP):
            some = items[start : start + STEP]
            rows.append(embed(some))
            bar.update(len(some))
    return np.concatenate(rows)
