"""Pairs to judge towers on: drawn, or from somebody's folder."""

from pathlib import Path

import pytest
from PIL import Image

from litapi.quality.pairs import Pairs, captioned
from litapi.settings import SettingsError


def add(folder: Path, name: str, caption: str | None) -> None:
    Image.new("RGBA", (20, 10), "teal").save(folder / name)
    if caption is not None:
        (folder / name).with_suffix(".txt").write_text(caption)


def test_drawn_pairs_come_with_prompts_and_the_truth() -> None:
    """Every picture has one caption and one true prompt; fewer are the first of more."""
    pairs = Pairs.drawn(9)
    assert pairs.captions == Pairs.drawn(20).captions[:9]
    assert len(list(pairs.pictures)) == len(pairs.captions) == len(pairs.truth) == 9
    for caption, truth in zip(pairs.captions, pairs.truth, strict=True):
        colour, shape = pairs.prompts[truth].removesuffix(".").split()[-2:]
        assert colour in caption
        assert shape.removesuffix("s") in caption


def test_a_folder_is_read_by_name_and_only_where_a_caption_lies(tmp_path: Path) -> None:
    """Pictures come as the service reads them; what has no caption is left out."""
    add(tmp_path, "b.png", " a teal thing\n")
    add(tmp_path, "a.PNG", "another")
    add(tmp_path, "c.png", None)
    (tmp_path / "d.txt").write_text("a caption of nothing")
    pairs = Pairs.of_folder(tmp_path)
    assert pairs.captions == ["another", "a teal thing"]
    assert [(one.mode, one.size) for one in pairs.pictures] == [("RGB", (20, 10))] * 2
    assert pairs.sources == [tmp_path / "a.PNG", tmp_path / "b.png"]
    assert (pairs.prompts, pairs.truth) == ([], [])


def test_a_folder_without_pairs_is_refused_by_the_options_name(tmp_path: Path) -> None:
    """Also one that is no folder, and a picture that cannot be read."""
    add(tmp_path, "c.png", None)
    with pytest.raises(SettingsError, match=r"--pairs: .* holds no image"):
        Pairs.of_folder(tmp_path)
    with pytest.raises(SettingsError, match=r"--pairs: .* is not a folder"):
        captioned(tmp_path / "none")
    (tmp_path / "c.txt").write_text("broken")
    (tmp_path / "c.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    with pytest.raises(SettingsError, match=r"--pairs: c\.png cannot be read \(image_"):
        list(Pairs.of_folder(tmp_path).pictures)


@pytest.mark.parametrize("caption", [b"", b" \n", b"caf\xe9"])
def test_a_caption_that_is_none_is_named(tmp_path: Path, caption: bytes) -> None:
    """An empty one would be refused later without a name; one in Latin-1 cannot be read."""
    add(tmp_path, "a.png", "")
    (tmp_path / "a.txt").write_bytes(caption)
    with pytest.raises(SettingsError, match=r"--pairs: a\.txt holds no text"):
        Pairs.of_folder(tmp_path)


def test_the_pictures_of_a_folder_are_not_held(tmp_path: Path) -> None:
    """A thousand photographs do not fit in memory: each is read when it comes, every time."""
    add(tmp_path, "a.png", "one")
    add(tmp_path, "b.png", "two")
    pictures = iter(Pairs.of_folder(tmp_path).pictures)
    next(pictures)
    (tmp_path / "b.png").unlink()
    with pytest.raises(OSError, match=r"b\.png"):
        next(pictures)
