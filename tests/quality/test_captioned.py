"""Folders of pictures and captions."""

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
