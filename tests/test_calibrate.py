"""`python -m litapi calibrate`, and a server that gives probabilities by what it wrote."""

import base64
from collections.abc import Iterator, Sequence
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
from litapi.messages import Kind
from litapi.quality.pairs import Captioned, PairsError
from litapi.quality.source import Source, plain
from litapi.scoring import Array, Sigmoid
from litapi.settings import Settings
from tests.support.picture import picture
from tests.support.verdicts import write_pairs

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
    other = Calibration.of(str(out), Checkpoint.open(DEMO))
    assert other is not None
    assert (other.model, other.space) == (found.model, found.space)
    assert other.scale == pytest.approx(found.scale, rel=1e-3)
    assert other.threshold == pytest.approx(found.threshold, rel=1e-2)
    shown = capsys.readouterr().out
    assert "120 pictures fitted, 120 held out" in shown
    assert f"{other.heldout.fitted.f1:.4f}" in shown


class Table:
    """Vectors that are known beforehand: item "3 …" has the third."""

    def __init__(self, texts: Array, images: Array) -> None:
        self._rows = {"text": texts, "image": images}

    def source(self) -> Source:
        return Source("table", "", self._ask, Sigmoid(10.0, -5.0), "0" * 16)

    def _ask(self, kind: Kind, items: Sequence[Any]) -> Embedded:
        numbers = [int(one.split()[0]) for one in items]
        return plain(self._rows[kind][numbers])


def captioned(folder: Path, count: int) -> Captioned:
    """Files that name a row of a table."""
    for number in range(count):
        (folder / f"{number:03}.png").write_bytes(b"%d" % number)
        (folder / f"{number:03}.txt").write_text(f"{number} is the first\n{number} again")
    return Captioned.of(folder)


def test_the_same_vectors_give_the_same_file(tmp_path: Path) -> None:
    """Which half a picture is in is drawn, and drawn alike each time."""
    rng = np.random.default_rng(7)
    images = rng.normal(size=(40, 8))
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    texts = images + rng.normal(size=images.shape) * 0.3
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    pairs, source = captioned(tmp_path, 40), Table(texts, images).source()
    one, other = (fit(pairs, source, 0.1).model_dump_json() for _ in range(2))
    assert one == other
    assert fit(pairs, source, 0.1).matching == 40, "two captions of each of twenty pictures"


def test_vectors_that_say_nothing_are_refused(tmp_path: Path) -> None:
    """All the same: no sigmoid tells matches from the rest."""
    same = np.ones((LEAST, 4)) / 2
    with pytest.raises(PairsError, match="same cosine"):
        fit(captioned(tmp_path, LEAST), Table(same, same).source(), 0.05)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--pairs", "{tmp}/gone"], "--pairs: "),
        (["--pairs", "{tmp}"], "--pairs: "),
        (["--pairs", "{few}"], "--pairs: "),
        (["--out", "{tmp}/gone/mine.json"], "--out: "),
        (["--matching-share", "0"], "--matching-share: "),
        (["--url", "http://127.0.0.1:9"], ""),
        (["--model", "{tmp}"], ""),
    ],
)
def test_what_cannot_be_fitted_is_said_in_one_line(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    named: str,
) -> None:
    """The option is named where it is to blame; exit code 2, and no file."""
    few = write_pairs(tmp_path / "few", 3)
    given = [flag.format(tmp=tmp_path, few=few) for flag in flags]
    out = tmp_path / "mine.json"
    assert main(["calibrate", "--pairs", str(folder), "--out", str(out), *given]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"siglit: {named}")
    assert said.count("\n") == 1
    assert not out.exists()


def encoded(number: int) -> str:
    return base64.b64encode(picture(number)).decode()


def test_a_server_gives_probabilities_by_the_file(
    calibrated: ServerProcess, found: Calibration
) -> None:
    """/info tells it, /score and /classify use it and keep the model's own beside."""
    with httpx.Client(base_url=calibrated.url, timeout=60) as http:
        model = http.get("/info").json()["model"]
        scores = http.post(
            "/score", json={"texts": ["a red star", "a moon"], "images": [encoded(5)]}
        ).json()
        classes = http.post(
            "/classify", json={"image": encoded(5), "labels": ["a red star", "a moon"]}
        ).json()
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


def test_client_and_engine_classify_as_the_server_does(
    calibrated: ServerProcess, folder: Path
) -> None:
    """Several templates, a threshold of one's own, calibrated probabilities; scores too."""
    labels, image = ["red", "blue", "a moon"], picture(6)
    body: dict[str, Any] = {"image": encoded(6), "labels": labels, "templates": TEMPLATES}
    with httpx.Client(base_url=calibrated.url, timeout=60) as http:
        told = http.post("/classify", json={**body, "threshold": 0.3}).json()["labels"]
    by_label = {one["label"]: one for one in told}
    file = str(folder / "engine.json")
    with (
        Client(calibrated.url) as client,
        Engine.open(precision="float32", calibration=file) as engine,
    ):
        for way in (client, engine):
            found = way.classify([image], labels, TEMPLATES, threshold=0.3)
            for at, label in enumerate(labels):
                one = by_label[label]
                assert found.cosine[0, at] == pytest.approx(one["cosine"], abs=1e-6)
                assert found.probability[0, at] == pytest.approx(one["probability"], abs=1e-5)
                own = one["model_probability"]
                assert found.model_probability[0, at] == pytest.approx(own, abs=1e-5)
                assert found.holds[0, at] == one["holds"]
        scores = [way.score(["a moon"], [image]) for way in (client, engine)]
    np.testing.assert_allclose(scores[0].probability, scores[1].probability, atol=1e-5)
    assert not np.allclose(scores[0].probability, scores[0].model_probability, atol=1e-4)
    assert scores[0].threshold == scores[1].threshold != 0.5


def test_labels_in_templates_are_computed_once_and_equal_their_mean(
    server: ServerProcess, client: httpx.Client
) -> None:
    """To 1e-6 of what /embed_text says; the second picture's captions are all hits."""
    labels = ["a green heart", "a yellow ring"]
    for number, states in ((707, ["miss"] * 7), (708, ["miss", *["hit-l1"] * 6])):
        body = {"image": encoded(number), "labels": labels, "templates": TEMPLATES}
        answer = client.post("/classify", json=body)
        assert answer.headers["x-cache"].split(",") == states
        image = client.post("/embed_image", json={"image": encoded(number)}).json()["embedding"]
        for one in answer.json()["labels"]:
            texts = [template.replace("{label}", one["label"]) for template in TEMPLATES]
            rows = np.array(client.post("/embed_text", json={"texts": texts}).json()["embeddings"])
            mean = rows.mean(axis=0)
            expected = mean / np.linalg.norm(mean) @ np.array(image)
            assert one["cosine"] == pytest.approx(expected, abs=1e-6)
            assert one["holds"] is (one["probability"] >= 0.5)
