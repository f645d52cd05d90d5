"""Pictures and captions: drawn, or from somebody's folder, and recall on them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from litapi.demo.judge import retrieval
from litapi.quality.pairs import Captioned, Pairs, PairsError, captioned
from litapi.scoring import Array
from litapi.settings import SettingsError

EYE = np.eye(12)


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


def by_number(items: Sequence[str | bytes]) -> Array:
    """Item "3…" is the third unit vector."""
    return EYE[[int(str(one, "ascii") if isinstance(one, bytes) else one[:2]) for one in items]]


def test_a_folder_of_pictures_and_captions_is_read_in_order(tmp_path: Path) -> None:
    """Each line of a .txt is a caption; pictures without one are left out."""
    for number in (0, 1, 2):
        (tmp_path / f"{number}.png").write_bytes(b"%02d" % number)
    (tmp_path / "0.txt").write_text("00 first\n\n00 again\n")
    (tmp_path / "2.txt").write_text("02 third")
    pairs = Captioned.of(tmp_path)
    assert pairs.captions == ["00 first", "00 again", "02 third"]
    assert pairs.owners == [0, 0, 1]
    texts, images = pairs.embedded(by_number, by_number)
    assert np.array_equal(texts, images[pairs.owners])


def test_coco_is_read_as_it_is_downloaded(tmp_path: Path) -> None:
    """Karpathy's test split, five captions a picture, pictures in their own folder."""
    folder = tmp_path / "val2014"
    folder.mkdir()
    listed = []
    for number, split in ((0, "test"), (1, "train"), (2, "test")):
        name = f"COCO_val2014_{number:012}.jpg"
        (folder / name).write_bytes(b"%02d" % number)
        sentences = [{"raw": f"{number:02} caption {n}"} for n in range(5)]
        place = {"filepath": "val2014", "filename": name, "split": split}
        listed.append({**place, "sentences": sentences})
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": listed}))
    pairs = Captioned.of(tmp_path)
    assert len(pairs.paths) == 2
    assert len(pairs.captions) == 10
    texts, images = pairs.embedded(by_number, by_number)
    found = retrieval(images, texts, owners=pairs.owners)
    assert set(found["text_to_image"].values()) == {1.0}


@pytest.mark.parametrize("content", [None, {}, {"images": [{"split": "test"}]}, {"images": 3}])
def test_a_folder_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, content: object
) -> None:
    """Nothing to read, or a split of another layout."""
    if content is not None:
        (tmp_path / "dataset_coco.json").write_text(json.dumps(content))
    with pytest.raises(PairsError):
        Captioned.of(tmp_path)


def shares(texts: Array, images: Array, owners: list[int]) -> list[list[float]]:
    """At 1, 5 and 10; text → image and image → text."""
    return [[*way.values()] for way in retrieval(images, texts, owners=owners).values()]


def test_recall_counts_ranks_both_ways_and_ties_against_the_model() -> None:
    """A caption whose picture is second counts at 5, and equal scores are no success."""
    images = EYE[:3]
    texts = np.array([EYE[0], 0.6 * EYE[1] + 0.8 * EYE[0], np.ones(12) / np.sqrt(12)])
    text_to_image, image_to_text = shares(texts, images, [0, 1, 2])
    assert text_to_image == pytest.approx([1 / 3, 1.0, 1.0])
    # the second image is found by its own caption first; the third shares a zero with another's
    assert image_to_text == [1.0, 1.0, 1.0]


def test_any_caption_of_a_picture_finds_it() -> None:
    """The best of five captions decides for the image; each caption counts for itself."""
    texts = np.concatenate([EYE[:2], EYE[5:6]])
    text_to_image, image_to_text = shares(texts, EYE[:2], [0, 1, 1])
    assert image_to_text[0] == 1.0
    assert text_to_image[0] == pytest.approx(2 / 3)
