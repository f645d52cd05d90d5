"""Converted towers on disk: made once, found again, never half there, and never in the way."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.rig.server_process import ROOT
from litapi.checkpoint import DEMO, Checkpoint, CheckpointError
from litapi.model.encoder import ImageEncoder, TextEncoder, choose_precision
from litapi.model.engines.calibration import Calibration
from litapi.model.engines.converted import GIVEN_UP, KEPT, MAKING, Shelf, key_of
from litapi.model.engines.making import shelf_in
from tests.support.checkpoint import CheckpointMaker, edit_json
from tests.support.inputs import Vectors, own_ids, own_pixels

TEXTS = ["a red circle", "two small blue squares"]
# Loads both towers, embeds, and says whether torch was loaded and what was dialled.
WATCHED = """
import json, sys
from pathlib import Path
dialled, meant = [], ("socket.connect", "socket.getaddrinfo", "socket.sendto")
sys.addaudithook(lambda event, given: dialled.append(event) if event in meant else None)
from litapi.checkpoint import Checkpoint
from litapi.model.check import check_image, check_text
from litapi.model.encoder import ImageEncoder, TextEncoder
checkpoint, cache = Checkpoint.open(sys.argv[1]), Path(sys.argv[2])
text = TextEncoder.load(checkpoint, "cpu", sys.argv[3], cache=cache)
image = ImageEncoder.load(checkpoint, "cpu", sys.argv[3], cache=cache)
findings = check_text(checkpoint, text) + check_image(checkpoint, image)
wrong = [finding.sentence for finding in findings if not finding.passed]
telemetry = [name for name in sys.modules if name.startswith("openvino_telemetry.")]
print(json.dumps([dialled, "torch" in sys.modules, wrong, telemetry]))
"""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """NaFlex, of random weights."""
    return Checkpoint.open(CheckpointMaker.named("tiny-naflex").write(tmp_path / "tiny"))


def both(checkpoint: Checkpoint, cache: Path) -> list[Vectors]:
    """Vectors of either tower, kept in `cache`."""
    text = TextEncoder.load(checkpoint, cache=cache)
    image = ImageEncoder.load(checkpoint, cache=cache)
    return [text.embed(own_ids(checkpoint, TEXTS)), image.embed(own_pixels(checkpoint))]


def same(first: list[Vectors], second: list[Vectors]) -> bool:
    return all(np.array_equal(one, two) for one, two in zip(first, second, strict=True))


def watched(folder: Path, cache: Path, precision: str) -> Any:
    """What WATCHED says, of a process of its own."""
    import orjson

    command = [sys.executable, "-c", WATCHED, str(folder), str(cache), precision]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=280)
    assert done.returncode == 0, done.stderr.decode()
    return orjson.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_nothing_is_dialled_and_the_second_start_needs_no_torch(
    tmp_path: Path, precision: str
) -> None:
    """Converting, calibrating, checking and serving: telemetry is not even loaded."""
    cache = tmp_path / "cache"
    assert watched(DEMO, cache, precision) == [[], True, [], []]
    assert watched(DEMO, cache, precision) == [[], False, [], []]


def test_both_precisions_of_floats_share_one_folder(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """bfloat16 is how it is compiled, not how it is kept."""
    cache = tmp_path / "cache"
    both(checkpoint, cache)
    TextEncoder.load(checkpoint, precision=choose_precision("auto", "cpu"), cache=cache)
    assert len(list((cache / "models").iterdir())) == 2


def test_a_damaged_tower_is_made_anew(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Cut short, or other numbers in files of the right length."""
    cache = tmp_path / "cache"
    expected = both(checkpoint, cache)
    for damage in (lambda data: data[:-100], lambda data: bytes(len(data)), lambda data: b""):
        for file in (cache / "models").glob("*/tower.bin"):
            file.write_bytes(damage(file.read_bytes()))
        assert same(both(checkpoint, cache), expected)
    for file in (cache / "models").glob("*/facts.json"):
        file.write_text("{")
    assert same(both(checkpoint, cache), expected)


def test_a_folder_that_cannot_be_made_or_written_to_costs_time_only(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """A file is in its place, or it is read-only: converted in memory, with the same bits."""
    expected = both(checkpoint, tmp_path / "other")
    (tmp_path / "file").write_text("no folder")
    assert not shelf_in(tmp_path / "file").writable()
    assert same(both(checkpoint, tmp_path / "file"), expected)
    (tmp_path / "cache").mkdir(mode=0o500)  # which root may write to all the same
    assert same(both(checkpoint, tmp_path / "cache"), expected)


def test_two_workers_that_convert_at_once_both_serve(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Whoever is second takes what the first has kept; nothing half made is left."""
    cache = tmp_path / "cache"
    script = WATCHED.replace("print(", "assert not wrong; print(")
    command = [sys.executable, "-c", script, str(checkpoint.folder), str(cache), "float32"]
    running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(2)]
    for one in running:
        one.communicate(timeout=280)
        assert one.returncode == 0
    assert len(list((cache / "models").iterdir())) == 2


def test_what_was_given_up_is_taken_away(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A process that was killed leaves gigabytes behind; what is young may be at work."""
    models = tmp_path / "cache" / "models"
    old, young = models / f"{MAKING}old", models / f"{MAKING}young"
    for folder in (old, young):
        folder.mkdir(parents=True)
    os.utime(old, (0, old.stat().st_mtime - GIVEN_UP - 1))
    both(checkpoint, tmp_path / "cache")
    assert not old.exists()
    assert young.exists()


def test_the_towers_that_were_used_last_stay(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Of each kind; and all that were used within the hour, as by a server that is starting."""
    models, long_ago = tmp_path / "cache" / "models", time.time() - 2 * GIVEN_UP
    for kind in ("text", "image"):
        for age in range(KEPT + 2):
            (models / f"{kind}-{age}").mkdir(parents=True)
            (models / f"{kind}-{age}" / "facts.json").write_text("{}")
            os.utime(models / f"{kind}-{age}", (long_ago, long_ago - age))
    assert shelf_in(tmp_path / "cache").has(f"image-{KEPT}")
    TextEncoder.load(checkpoint, cache=tmp_path / "cache")
    assert {path.name for path in models.iterdir() if len(path.name) < 9} == {
        *(f"text-{age}" for age in range(KEPT)),
        *(f"image-{age}" for age in (*range(KEPT - 1), KEPT)),
    }


def test_whatever_could_change_a_tower_is_in_its_key(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, settings of the image processor, calibration, versions, and the code."""
    keys = {key_of(checkpoint, "image"), key_of(checkpoint, "image", "digest")}
    for package in ("openvino", "torch", "transformers"):
        with monkeypatch.context() as patch:
            patch.setattr(
                "litapi.model.engines.converted.version",
                lambda name, package=package: "other" if name == package else "1",
            )
            keys.add(key_of(checkpoint, "image"))
    with monkeypatch.context() as patch:
        patch.setattr("litapi.model.engines.converted._code", lambda: "other")
        keys.add(key_of(checkpoint, "image"))
    other = CheckpointMaker.named("tiny-naflex")
    other.seed = 1
    keys.add(key_of(Checkpoint.open(other.write(tmp_path / "seed")), "image"))
    edit_json(checkpoint.folder / "preprocessor_config.json", note="read by nobody")
    keys.add(key_of(Checkpoint.open(checkpoint.folder), "image"))
    assert len(keys) == 8


def test_calibration_is_named_by_what_it_sees(tmp_path: Path) -> None:
    """The bytes of the pairs, not their folder; other patches are other pictures."""
    from tests.support.verdicts import write_pairs

    checkpoint = Checkpoint.open(DEMO)
    one, two = write_pairs(tmp_path / "one", 4), write_pairs(tmp_path / "two", 4)
    digests = [Calibration(str(folder)).digest(checkpoint, "image") for folder in (one, two)]
    assert digests[0] == digests[1]
    first = sorted(two.glob("*.png"))[0]
    first.write_bytes(first.read_bytes() + b" ")
    assert Calibration(str(two)).digest(checkpoint, "image") != digests[0]
    assert Calibration(str(two)).digest(checkpoint, "text") == Calibration(str(one)).digest(
        checkpoint, "text"
    )
    assert Calibration(max_num_patches=9).digest(checkpoint, "image") != Calibration().digest(
        checkpoint, "image"
    )


def test_without_nncf_the_reason_is_given(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the way to have it; a tower that is kept does without it."""
    cache = tmp_path / "cache"
    demo = Checkpoint.open(DEMO)
    TextEncoder.load(demo, precision="int8", cache=cache)
    monkeypatch.setitem(sys.modules, "nncf", None)
    TextEncoder.load(demo, precision="int8", cache=cache)
    with pytest.raises(CheckpointError, match=r"NNCF.*requirements-int8\.txt"):
        TextEncoder.load(checkpoint, precision="int8", cache=cache)


def test_calibrating_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A command may be writing its vectors there; NNCF draws bars."""
    TextEncoder.load(Checkpoint.open(DEMO), precision="int8", cache=tmp_path)
    assert capfd.readouterr().out == ""


def test_a_shelf_without_the_tower_finds_none(tmp_path: Path) -> None:
    """No folder at all, or an empty one."""
    assert Shelf(tmp_path / "none").find("text-1") is None
    (tmp_path / "text-1").mkdir()
    assert Shelf(tmp_path).find("text-1") is None
    assert not Shelf(tmp_path).has("text-1")
