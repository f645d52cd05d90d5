"""A real server in int8: its vectors, what it says of itself, and what it refuses to start with."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from bench.rig.port import free_port
from bench.rig.server_process import ServerProcess
from litapi.client import Client
from litapi.model.encoder import ImageEncoder, TextEncoder, choose_precision
from litapi.model.picture import PictureReader
from litapi.model.pixels import PixelMaker
from litapi.server import COMPILE_NOTE
from tests.support.command import litapi
from tests.support.inputs import Vectors, cosines, own_ids
from tests.support.picture import picture
from tests.support.verdicts import CHECKPOINT, figures, keep, settings, write_pairs


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Calibrated and judged at start, on 64 pairs."""
    folder = tmp_path_factory.mktemp("int8")
    pairs, cache = write_pairs(folder / "own", 64), folder / "cache"
    flags = ("--precision", "int8", "--pairs", str(pairs), "--compile-cache", str(cache))
    with ServerProcess(*flags) as running:
        yield running


def refused(*flags: str) -> str:
    """What a server says that ends with exit code 2."""
    done = litapi("serve", "--port", free_port(), *flags)
    assert done.returncode == 2, done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_vectors_served_in_int8_are_near_float32(int8: ServerProcess) -> None:
    """Texts and images, over HTTP, beside the plain towers."""
    texts, images = ["a red circle", "two small blue squares"], [picture(n) for n in range(3)]
    with Client(int8.url) as client:
        said, seen = client.embed_texts(texts), client.embed_images(images)
    check(said, TextEncoder.load(CHECKPOINT).embed(own_ids(CHECKPOINT, texts)))
    maker, reader = PixelMaker(CHECKPOINT), PictureReader()
    pixels = [maker.make(reader.read(image)) for image in images]
    check(seen, ImageEncoder.load(CHECKPOINT).embed(pixels))


def check(served: Vectors, exact: Vectors) -> None:
    assert 0.95 <= cosines(served, exact).min() < 1 - 1e-6, "or these are float32's"


def test_info_and_metrics_say_what_the_towers_compute_in(int8: ServerProcess) -> None:
    """And what that is worth on the pairs that were given."""
    info = httpx.get(f"{int8.url}/info", timeout=60).json()
    model, quality = info["model"], info["model"]["quality"]
    assert model["precision"] == {"text": "int8", "image": "int8"}
    assert (model["compiled"], quality["passed"], quality["pairs"]) == (False, True, 64)
    assert {worker["arithmetic"].partition(", ")[0] for worker in info["workers"]} == {"int8"}
    exposed = httpx.get(f"{int8.url}/metrics", timeout=60).text
    for kind in ("text", "image"):
        assert f'siglit_tower_info{{compiled="off",kind="{kind}",precision="int8"}} 1.0' in exposed


def test_as_it_comes_it_serves_what_this_machine_does_fast() -> None:
    """float32 or bfloat16 in OpenVINO: near float32's, and the same bits alone as among others."""
    with ServerProcess("--precision", "auto", "--cache", "off") as server:
        info = httpx.get(f"{server.url}/info", timeout=60).json()
        assert {worker["engine"] for worker in info["workers"]} == {"openvino"}
        assert {*info["model"]["precision"].values()} == {choose_precision("auto", "cpu")}
        texts = [f"{number} red circles" for number in range(24)]
        with Client(server.url) as client:
            together = client.embed_texts(texts)
            alone = np.concatenate([client.embed_texts([text]) for text in texts[:4]])
    exact = TextEncoder.load(CHECKPOINT).embed(own_ids(CHECKPOINT, texts))
    assert cosines(together, exact).min() >= 0.999
    assert np.array_equal(together[:4], alone)


def test_a_precision_that_cannot_run_stops_the_start() -> None:
    """Found by the gate, or by the worker where no gate is needed; either names the option."""
    assert refused("--image-precision", "float8").startswith("siglit: --image-precision: ")


def test_bfloat16_stops_the_start_where_it_would_be_emulated() -> None:
    """A worker finds out, and the last line names the option."""
    if choose_precision("auto", "cpu") == "bfloat16":
        pytest.skip("this CPU computes in bfloat16")
    assert "--text-precision: The device cpu does not compute in bfloat16" in refused(
        "--text-precision", "bfloat16"
    )


def test_what_has_no_effect_or_no_sense_on_a_cpu_is_said(tmp_path: Path) -> None:
    """Compiling is left out with a note, and needs no folder; without OpenVINO there is no int8."""
    assert refused("--precision", "int8", "--engine", "torch").startswith(
        "siglit: --precision: On a CPU int8 is OpenVINO's"
    )
    (tmp_path / "cache").write_text("no folder")
    compile_cache = ("--compile-cache", str(tmp_path / "cache"))
    with ServerProcess("--devices", "cpu", "--compile", "on", *compile_cache) as server:
        info = httpx.get(f"{server.url}/info", timeout=60).json()
    assert info["problems"] == [COMPILE_NOTE]
    assert not any(worker["compiled"] for worker in info["workers"])


def test_a_failed_gate_stops_the_start(tmp_path: Path) -> None:
    """With a verdict of before; the sentence says how to start all the same."""
    chosen = settings(tmp_path)
    keep(chosen, figures(lost=0.2))
    sentence = refused("--precision", "int8", "--compile-cache", chosen.compile_cache)
    assert "the quality gate is failed: recall@1 loses 20.00%" in sentence
    assert "--accept-loss on" in sentence
