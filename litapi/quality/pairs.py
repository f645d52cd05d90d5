"""Pictures and the captions that belong to them.

`Pairs` judge towers. The drawn ones ship with the demo checkpoint, which was not trained on them.
For another checkpoint they are only what is at hand; a folder of one's own pictures and captions
says more.

`Captioned` pictures may have several captions: a folder holds them with a .txt of the same name
beside each, one caption a line; or COCO as it is downloaded, with Karpathy's split beside the
folders of pictures:

    dataset_coco.json     val2014/COCO_val2014_000000391895.jpg …
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from PIL import Image

from litapi.errors import ItemError
from litapi.model.picture import PicturePolicy, PictureReader
from litapi.model.pixel_budget import PixelBudget
from litapi.scoring import Array
from litapi.settings import SettingsError

if TYPE_CHECKING:  # with httpx it is 4 MB that a server has no use for
    from litapi.client.pictures import Picture

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
AT_MOST = 1000
MAX_PIXELS = 50_000_000
KARPATHY, SPLIT = "dataset_coco.json", "test"
STEP = 256  # items embedded between two moves of the progress bar
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pairs:
    """Row i of both lists belongs together; `truth` says which prompt is true of picture i."""

    name: str
    pictures: Sequence[Image.Image]  # those of a folder are read one by one, each time
    captions: list[str]
    prompts: list[str] = field(default_factory=list)
    truth: list[int] = field(default_factory=list)

    @property
    def sources(self) -> Sequence[Picture]:
        """As an engine or a client takes them: the files of a folder, or what was drawn."""
        return self.pictures.paths if isinstance(self.pictures, Pictures) else self.pictures

    @classmethod
    def drawn(cls, count: int) -> Self:
        """The first `count` of the scenes that were kept from training, drawn."""
        from litapi.demo.heldout import pictures, yardstick
        from litapi.demo.questions import questions

        scenes = yardstick(count)
        prompts, truth = questions(scenes)["both"]
        captions = [scene.caption() for scene in scenes]
        return cls(f"{count} drawn pairs", pictures(scenes, "yardstick"), captions, prompts, truth)

    @classmethod
    def of_folder(cls, folder: Path) -> Self:
        """The first thousand images of `folder` beside which lies a .txt of the same name. Raises
        SettingsError where there are none, or where one cannot be read."""
        paths = captioned(folder)
        if not paths:
            raise SettingsError(f"--pairs: {folder} holds no image with a .txt caption beside it")
        captions = [_caption(path.with_suffix(".txt")) for path in paths]
        return cls(f"{len(paths)} pairs of {folder.name}", Pictures(paths), captions)


class Pictures(Sequence[Image.Image]):
    """The pictures of these files. A thousand photographs at once would be 48 GB. Raises
    SettingsError at one that cannot be read."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return Pictures(self.paths[number])
        return _read(self.paths[number])


def _caption(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except ValueError:
        text = ""
    if not text:
        raise SettingsError(f"--pairs: {path.name} holds no text in UTF-8")
    return text


def captioned(folder: Path) -> list[Path]:
    """The images of `folder` that have a caption, by name."""
    if not folder.is_dir():
        raise SettingsError(f"--pairs: {folder} is not a folder")
    return beside(folder)[:AT_MOST]


def beside(folder: Path) -> list[Path]:
    """All of them, of a folder that is there."""
    images = (path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES)
    return [path for path in images if path.with_suffix(".txt").is_file()]


def _read(path: Path) -> Image.Image:
    formats = ("jpeg", "png", "webp", "gif", "bmp")
    policy = PicturePolicy(formats=formats, max_bytes=1 << 30, max_pixels=MAX_PIXELS, draft=False)
    try:
        return PictureReader(policy, PixelBudget(MAX_PIXELS)).read(path.read_bytes())
    except ItemError as error:
        raise SettingsError(f"--pairs: {path.name} cannot be read ({error.code})") from None


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
        return rows, _embedded(lambda some: pictures(_contents(some)), self.paths, "pictures")


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


def _contents(paths: Sequence[Path]) -> list[bytes]:
    try:
        return [path.read_bytes() for path in paths]
    except OSError as error:
        raise PairsError(f"{error.filename} cannot be read") from None


def _embedded(embed: Callable[[Sequence[T]], Array], items: Sequence[T], what: str) -> Array:
    from tqdm import tqdm

    rows = []
    with tqdm(total=len(items), desc=what, unit="item", leave=False, disable=None) as bar:
        for start in range(0, len(items), STEP):
            some = items[start : start + STEP]
            rows.append(embed(some))
            bar.update(len(some))
    return np.concatenate(rows)
