"""`python -m litapi calibrate`, the file that it writes, and a server that goes by it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from bench.rig.server_process import ServerProcess
from litapi import Engine
from litapi.__main__ import main
from litapi.calibrate import LEAST, calibrate, fit
from litapi.calibration import Calibration
from litapi.checkpoint import DEMO, Checkpoint
from litapi.client import Client, Embedded
from litapi.demo.judge import unit
from litapi.messages import Kind
from litapi.quality.pairs import Captioned, PairsError
from litapi.quality.source import Source, plain
from litapi.scoring import Array, Sigmoid
from litapi.settings import Settings, SettingsError
from tests.support.calibration import calibration
from tests.support.desk import b64
from tests.support.picture import picture
from tests.support.verdicts import write_pairs

CHECKPOINT = Checkpoint.open(DEMO)
PAIRS = 240
SETTINGS = Settings.read({"precision": "float32"}, {})
TEMPLATES = ["a photo of {label}", "{label}.", "a drawing of {label}"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn pictures whose captions differ in a word from their neighbours'."""
    return write_pairs(tmp_path_factory.mktemp("pairs") / "drawn", PAIRS)


@pytest.fixture(scope="module")
def found(folder: Path) -> Calibration:
    """What an engine in this process finds."""
    return calibrate(folder, folder / "engine.json", 0.05, None, None, SETTINGS)


@pytest.fixture(scope="module")
def calibrated(folder: Path, found: Calibration) -> Iterator[ServerProcess]:
    """A server that was given what was found."""
    with ServerProcess("--calibration", str(folder / "engine.json")) as running:
        yield running


def test_held_out_pairs_gain_by_a_calibration(found: Calibration) -> None:
    """F1 is no worse and the calibration error at most half, on pictures that were not fitted."""
    own, better = found.heldout.model, found.heldout.fitted
    assert own.f1 < 1, "pairs that are too easy prove nothing"
    assert better.f1 >= own.f1
    assert better.log_loss < own.log_loss
    assert better.calibration_error < own.calibration_error / 2
    assert own.threshold == 0.5
    assert found.pictures + found.heldout.pictures == PAIRS


def test_a_server_is_as_good_a_source_as_an_engine(
    folder: Path, found: Calibration, server: ServerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same numbers by HTTP, from the command line, which prints what it found."""
    out = folder / "server.json"
    assert main(["calibrate", "--pairs", str(folder), "--out", str(out), "--url", server.url]) == 0
    other = Calibration.of(str(out), CHECKPOINT)
    assert other is not None
    assert (other.model, other.space) == (found.model, found.space)
    assert other.scale == pytest.approx(found.scale, rel=1e-3)
    assert other.threshold == pytest.approx(found.threshold, rel=1e-2)
    shown = capsys.readouterr().out
    assert "120 pictures fitted, 120 held out" in shown
    assert f"{other.heldout.fitted.f1:.4f}" in shown


def table(texts: Array, images: Array) -> Source:
    """Vectors that are known beforehand: item "3 …" has the third."""
    rows = {"text": texts, "image": images}

    def ask(kind: Kind, items: Sequence[Any]) -> Embedded:
        return plain(rows[kind][[int(one.split()[0]) for one in items]])

    return Source("table", "", ask, Sigmoid(10.0, -5.0), "0" * 16)


def captioned(folder: Path, count: int) -> Captioned:
    """Files that name a row of a table."""
    for number in range(count):
        (folder / f"{number:03}.png").write_bytes(b"%d" % number)
        (folder / f"{number:03}.txt").write_text(f"{number} is the first\n{number} again")
    return Captioned.of(folder)


def test_the_same_vectors_give_the_same_file(tmp_path: Path) -> None:
    """Which half a picture is in is drawn, and drawn alike each time."""
    rng = np.random.default_rng(7)
    images = unit(rng.normal(size=(40, 8)))
    texts = unit(images + rng.normal(size=images.shape) * 0.3)
    pairs, source = captioned(tmp_path, 40), table(texts, images)
    one, other = (fit(pairs, source, 0.1).model_dump_json() for _ in range(2))
    assert one == other
    assert fit(pairs, source, 0.1).matching == 40, "two captions of each of twenty pictures"


def test_vectors_that_say_nothing_are_refused(tmp_path: Path) -> None:
    """All the same: no sigmoid tells matches from the rest."""
    same = np.ones((LEAST, 4)) / 2
    with pytest.raises(PairsError, match="same cosine"):
        fit(captioned(tmp_path, LEAST), table(same, same), 0.05)


def test_what_cannot_be_fitted_is_said_in_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The option is named where it is to blame; exit code 2, and no file."""
    few, out = write_pairs(tmp_path / "few", 3), tmp_path / "mine.json"
    wrong: list[tuple[str, Path | str, str]] = [
        *(("--pairs", pairs, "--pairs: ") for pairs in (tmp_path / "gone", tmp_path, few)),
        ("--out", tmp_path / "gone" / "mine.json", "--out: "),
        ("--matching-share", "0", "--matching-share: "),
        *(("--url", "http://127.0.0.1:9", ""), ("--model", tmp_path, "")),
    ]
    for flag, value, named in wrong:
        given = ["--pairs", str(folder), "--out", str(out), flag, str(value)]
        assert main(["calibrate", *given]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"siglit: {named}")
        assert said.count("\n") == 1
        assert not out.exists()


def test_a_server_goes_by_the_file(calibrated: ServerProcess, found: Calibration) -> None:
    """/info tells it, /score and /classify use it and keep the model's own beside."""
    texts, image = ["a red star", "a moon"], b64(picture(5))
    with httpx.Client(base_url=calibrated.url, timeout=60) as http:
        model = http.get("/info").json()["model"]
        scores = http.post("/score", json={"texts": texts, "images": [image]}).json()
        classes = http.post("/classify", json={"image": image, "labels": texts}).json()
    assert model["calibration"]["scale"] == found.scale
    cosine = np.array(scores["cosine"])
    own = Sigmoid(model["logit_scale"], model["logit_bias"])
    np.testing.assert_allclose(scores["probability"], found.sigmoid(cosine), atol=1e-12)
    np.testing.assert_allclose(scores["model_probability"], own(cosine), atol=1e-12)
    assert classes["threshold"] == found.threshold
    for one in classes["labels"]:
        assert one["probability"] == pytest.approx(float(found.sigmoid(one["cosine"])), abs=1e-12)
        assert one["model_probability"] == pytest.approx(float(own(one["cosine"])), abs=1e-12)
        assert one["holds"] is (one["probability"] >= found.threshold)


def test_client_and_engine_classify_as_the_server(calibrated: ServerProcess, folder: Path) -> None:
    """Several templates, a threshold of one's own, calibrated probabilities; scores too."""
    labels, image = ["red", "blue", "a moon"], picture(6)
    body: dict[str, Any] = {"image": b64(picture(6)), "labels": labels, "templates": TEMPLATES}
    answer = httpx.post(f"{calibrated.url}/classify", json={**body, "threshold": 0.3}, timeout=60)
    by_label = {one["label"]: one for one in answer.json()["labels"]}
    options = {"precision": "float32", "calibration": str(folder / "engine.json")}
    with Client(calibrated.url) as client, Engine.open(**options) as engine:
        for way in (client, engine):
            found = way.classify([image], labels, TEMPLATES, threshold=0.3)
            for name in ("cosine", "probability", "model_probability", "holds"):
                told = [by_label[label][name] for label in labels]
                near = pytest.approx(told, abs=1e-6 if name == "cosine" else 1e-5)
                assert getattr(found, name)[0].tolist() == near
        scores = [way.score(["a moon"], [image]) for way in (client, engine)]
    np.testing.assert_allclose(scores[0].probability, scores[1].probability, atol=1e-5)
    assert not np.allclose(scores[0].probability, scores[0].model_probability, atol=1e-4)
    assert scores[0].threshold == scores[1].threshold != 0.5


def test_labels_in_templates_equal_their_mean(server: ServerProcess, client: httpx.Client) -> None:
    """To 1e-6 of what /embed_text says; the second picture's captions are all hits."""
    labels = ["a green heart", "a yellow ring"]
    for number, states in ((707, ["miss"] * 7), (708, ["miss", *["hit-l1"] * 6])):
        body = {"image": b64(picture(number))}
        answer = client.post("/classify", json={**body, "labels": labels, "templates": TEMPLATES})
        assert answer.headers["x-cache"].split(",") == states
        image = client.post("/embed_image", json=body).json()["embedding"]
        for one in answer.json()["labels"]:
            texts = [template.replace("{label}", one["label"]) for template in TEMPLATES]
            rows = np.array(client.post("/embed_text", json={"texts": texts}).json()["embeddings"])
            mean = rows.mean(axis=0)
            expected = mean / np.linalg.norm(mean) @ np.array(image)
            assert one["cosine"] == pytest.approx(expected, abs=1e-6)
            assert one["holds"] is (one["probability"] >= 0.5)


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    """To the last digit, and no other file is left; no file is no calibration."""
    assert Calibration.of("", CHECKPOINT) is None
    path = tmp_path / "mine.json"
    calibration(1 / 3).write(path)
    assert Calibration.of(str(path), CHECKPOINT) == calibration(1 / 3)
    assert list(tmp_path.iterdir()) == [path]


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"scale": 0.0}, "scale: "), ({"scale": "5"}, "scale: "), ({"bias": None}, "bias: "),
    ({"threshold": 1.01}, "threshold: "), ({"heldout": {}}, "heldout.pictures: "),
    ({"sclae": 5.0}, "sclae: "),
]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "named"),
    [
        *((json.dumps(calibration().model_dump() | one).encode(), named) for one, named in CHANGES),
        *((one, "is no file of") for one in (b"", b"[]", b"\xff\xfe", b'{"scale": NaN}')),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, content: bytes | None, named: str
) -> None:
    """One line, which begins with the option and names a malformed field; one that is not there has
    the machine's own reason."""
    path = tmp_path / "mine.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=rf"\A--calibration: {path} .*{named}.*\Z"):
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
