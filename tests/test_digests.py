"""The sha256 of files, remembered between starts."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from litapi.digests import DIGEST, KEPT, LARGE, Digests, _hashed


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return written(tmp_path / "model.safetensors", b"a")


@pytest.fixture
def digests(tmp_path: Path) -> Digests:
    return Digests(tmp_path / "cache")


def written(path: Path, byte: bytes, age: float = 100.0) -> Path:
    path.write_bytes(byte * LARGE)
    os.utime(path, (time.time() - age,) * 2)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if what was just written had lain there for a while: nobody can set a file's own clock."""
    monkeypatch.setattr("litapi.digests.SETTLED", -1.0)


def kept(digests: Digests) -> list[Path]:
    assert digests.folder is not None
    return [one for one in digests.folder.rglob("*") if one.is_file()]


def test_a_digest_is_remembered_by_the_next_process(weights: Path, digests: Digests) -> None:
    """It is read from the folder, and the weights are not."""
    assert digests.of(weights) == sha256(weights)
    (file,) = kept(digests)
    assert file.read_text() == sha256(weights)
    file.write_text("f" * 64)  # what nothing but the folder can know
    _hashed.cache_clear()
    assert digests.of(weights) == "f" * 64


@pytest.mark.parametrize("how", ["written to", "replaced", "given its old time again"])
def test_weights_that_changed_are_hashed_again(weights: Path, digests: Digests, how: str) -> None:
    """Of the same length, and even with the old time of writing."""
    digests.of(weights)
    before = weights.stat()
    written(weights.with_name("new") if how == "replaced" else weights, b"b").replace(weights)
    if how != "written to":
        os.utime(weights, (before.st_atime, before.st_mtime))
    assert digests.of(weights) == sha256(weights)


def test_a_file_that_just_changed_is_not_remembered(
    weights: Path, digests: Digests, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may change again within one step of the file system's clock."""
    monkeypatch.undo()
    assert digests.of(weights) == sha256(weights)  # it was made a moment ago, whatever its mtime
    assert kept(digests) == []


@pytest.mark.parametrize("said", ["", "g" * 64, "a" * 63, "\xff" * 64])
def test_what_is_no_digest_is_not_believed(weights: Path, digests: Digests, said: str) -> None:
    """A file that was cut short, or that somebody wrote into, is made anew."""
    digests.of(weights)
    (file,) = kept(digests)
    file.write_bytes(said.encode("latin-1"))
    assert digests.of(weights) == sha256(weights)
    assert file.read_text() == sha256(weights)


def test_a_folder_that_cannot_be_used_costs_time_only(weights: Path, tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "file").write_text("")
    assert Digests(tmp_path / "file").of(weights) == sha256(weights)
    assert Digests().of(weights) == sha256(weights)


def test_small_files_are_read_each_time(tmp_path: Path, digests: Digests) -> None:
    """A file for each would cost more than it saves."""
    small = tmp_path / "config.json"
    small.write_text("{}")
    assert digests.of(small) == sha256(small)
    assert kept(digests) == []


def test_only_so_many_are_kept(tmp_path: Path, digests: Digests) -> None:
    """The oldest make room, so that a folder used for years stays small."""
    for number in range(KEPT + 3):
        digests.of(written(tmp_path / f"{number}", b"c"))
    assert len(kept(digests)) == KEPT
    assert all(DIGEST.fullmatch(file.read_text()) for file in kept(digests))
