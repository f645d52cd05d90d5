"""Folders of pictures and captions, and recall on them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from litapi.demo.judge import retrieval
from litapi.quality.captioned import Captioned, PairsError
from litapi.scoring import Array

EYE = np.eye(12)


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
