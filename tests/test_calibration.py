"""The file of a calibration: written, read again, and refused where it cannot be used."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from litapi.calibration import Calibration
from litapi.checkpoint import DEMO, Checkpoint
from litapi.settings import SettingsError
from tests.support.calibration import calibration

CHECKPOINT = Checkpoint.open(DEMO)


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    """To the last digit, and no other file is left; no file is no calibration."""
    assert Calibration.of("", CHECKPOINT) is None
    path = tmp_path / "mine.json"
    calibration(1 / 3).write(path)
    assert Calibration.of(str(path), CHECKPOINT) == calibration(1 / 3)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"scale": 0.0}, "scale: "),
        ({"scale": "5"}, "scale: "),
        ({"bias": None}, "bias: "),
        ({"threshold": 1.01}, "threshold: "),
        ({"heldout": {}}, "heldout.pictures: "),
        ({"sclae": 5.0}, "sclae: "),
    ],
)
def test_a_malformed_file_names_itself_and_the_field(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    """One line, which begins with the option."""
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({**calibration().model_dump(), **change}))
    with pytest.raises(SettingsError) as refusal:
        Calibration.of(str(path), CHECKPOINT)
    text = str(refusal.value)
    assert text.startswith(f"--calibration: {path} ")
    assert named in text
    assert "\n" not in text


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b'{"scale": NaN}'])
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """Whatever it holds; one that is not there has the machine's own reason."""
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        Calibration.of(str(tmp_path / "gone.json"), CHECKPOINT)
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match="is no file of"):
        Calibration.of(str(path), CHECKPOINT)


def test_the_calibration_of_another_model_is_refused(tmp_path: Path) -> None:
    """Its cosines mean something else; both are named."""
    path = tmp_path / "mine.json"
    calibration().write(path)
    other = replace(CHECKPOINT, name="other/model", space="0123456789abcdef")
    with pytest.raises(SettingsError) as refusal:
        Calibration.of(str(path), other)
    text = str(refusal.value)
    assert all(one in text for one in (str(path), CHECKPOINT.name, "other/model"))
