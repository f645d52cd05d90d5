"""Pictures and captions that belong together, to judge towers on.

The drawn ones ship with the demo checkpoint, which was not trained on them. For another checkpoint
they are only what is at hand; a folder of one's own pictures and captions says more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from PIL import Image

from litapi.errors import ItemError
from litapi.model.picture import PicturePolicy, PictureReader
from litapi.model.pixel_budget import PixelBudget
from litapi.settings import SettingsError

if TYPE_CHECKING:  # with httpx it is 4 MB that a server has no use for
    from litapi.client.pictures import Picture

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
AT_MOST = 1000
MAX_PIXELS = 50_000_000


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
