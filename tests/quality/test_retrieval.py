"""Recall on folders of pictures and captions."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from litapi.quality.retrieval import Captioned, PairsError, Recall
from litapi.quality.source import Array, Source

EYE = np.eye(12)


def by_number(items: Sequence[str | bytes]) -> Array:
    """Item "3…" is the third unit vector."""
    return EYE[[int(str(one, "ascii") if isinstance(one, bytes) else one[:2]) for one in items]]


SOURCE = Source("scripted", "", by_number, by_number)


def test_recall_counts_ranks_both_ways_and_ties_against_the_model() -> None:
    """A caption whose picture is second counts at 5, and equal scores are no success."""
    images = EYE[:3]
    texts = np.array([EYE[0], 0.6 * EYE[1] + 0.8 * EYE[0], np.ones(12) / np.sqrt(12)])
    recall = Recall.of(texts, images, [0, 1, 2])
    assert recall.text_to_image == pytest.approx((1 / 3, 1.0, 1.0))
    # the second image is found by its own caption first; the third shares a zero with another's
    assert recall.image_to_text == pytest.approx((1.0, 1.0, 1.0))


def test_any_caption_of_a_picture_finds_it() -> None:
    """The best of five captions decides for the image; each caption counts for itself."""
    texts = np.concatenate([EYE[:2], EYE[5:6]])
    recall = Recall.of(texts, EYE[:2], [0, 1, 1])
    assert recall.image_to_text[0] == 1.0
    assert recall.text_to_image[0] == pytest.approx(2 / 3)


def test_vectors_that_collapsed_find_nothing() -> None:
    """Where all vectors are one, every rank is a tie."""
    same = np.tile(EYE[:1], (12, 1))
    assert Recall.of(same, same, list(range(12))).text_to_image == (0.0, 0.0, 0.0)


def test_a_folder_of_pictures_and_captions_is_read_in_order(tmp_path: Path) -> None:
    """Each line of a .txt is a caption; pictures without one are left out."""
    for number in (0, 1, 2):
        (tmp_path / f"{number}.png").write_bytes(b"%02d" % number)
    (tmp_path / "0.txt").write_text("00 first\n\n00 again\n")
    (tmp_path / "2.txt").write_text("02 third")
    pairs = Captioned.of(tmp_path)
    assert pairs.captions == ["00 first", "00 again", "02 third"]
    assert pairs.owners == [0, 0, 1]
    assert pairs.recall(SOURCE).text_to_image == (1.0, 1.0, 1.0)


def test_coco_is_read_as_it_is_downloaded(tmp_path: Path) -> None:
    """Karpathy's test split, five captions a picture, pictures in their own folder."""
    folder = tmp_path / "val2014"
    folder.mkdir()
    images = []
    for number, split in ((0, "test"), (1, "train"), (2, "test")):
        name = f"COCO_val2014_{number:012}.jpg"
        (folder / name).write_bytes(b"%02d" % number)
        sentences = [{"raw": f"{number:02} caption {n}"} for n in range(5)]
        place = {"filepath": "val2014", "filename": name, "split": split}
        images.append({**place, "sentences": sentences})
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images}))
    pairs = Captioned.of(tmp_path)
    assert len(pairs.paths) == 2
    assert len(pairs.captions) == 10
    lines = list(pairs.recall(SOURCE).lines())
    assert lines[1].split() == ["text", "→", "image", "100.0%", "100.0%", "100.0%"]


@pytest.mark.parametrize("content", [None, {}, {"images": [{"split": "test"}]}, {"images": 3}])
def test_a_folder_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, content: object
) -> None:
    """Nothing to read, or a split of another layout: the option is named."""
    if content is not None:
        (tmp_path / "dataset_coco.json").write_text(json.dumps(content))
    with pytest.raises(PairsError, match="--retrieval"):
        Captioned.of(tmp_path)
