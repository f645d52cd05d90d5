"""The towers on a real GPU: vectors beside the CPU's float32 ones, in every precision it has.

Skipped where there is no GPU. Everything is the shipped checkpoint, and one of random weights that
has a fixed resolution.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from bench.conformance import Server, run
from bench.faults.vitals import workers
from bench.reference import Reference
from bench.rig.server_process import ServerProcess
from litapi.checkpoint import DEMO, Checkpoint, CheckpointError
from litapi.client import Client
from litapi.engine import Engine
from litapi.model.encoder import ImageEncoder, TextEncoder
from litapi.model.engines.compiled import keep_in
from litapi.model.engines.torch_engine import TorchImages, TorchText
from litapi.model.picture import PictureReader
from litapi.model.pixels import PixelMaker, Pixels
from litapi.model.precision import PRECISIONS, choose_precision, require_compiled
from tests.support.checkpoint import CheckpointMaker
from tests.support.inputs import Vectors, cosines, own_ids, own_pixels
from tests.support.late import spoil
from tests.support.picture import picture

if not torch.cuda.is_available():
    pytest.skip("this machine has no GPU", allow_module_level=True)

pytestmark = pytest.mark.gpu
GPU = "cuda:0"
Kind = Any  # the class of either encoder
TEXTS = [f"{count} red circles and {'many ' * (count % 50)}squares" for count in range(300)]


@pytest.fixture(scope="module", params=["demo", "tiny-fixed"])
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    """NaFlex, trained; and a fixed resolution, random."""
    if request.param == "demo":
        return Checkpoint.open(DEMO)
    maker = CheckpointMaker.named(request.param)
    return Checkpoint.open(maker.write(tmp_path_factory.mktemp("gpu") / request.param))


@pytest.fixture(scope="module")
def inductor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled code of this file's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
        keep_in(tmp_path_factory.mktemp("inductor"))
        yield
        torch.compiler.reset()


@pytest.fixture(params=PRECISIONS)
def precision(request: pytest.FixtureRequest) -> str:
    """Each that this card computes in without compiling."""
    return able(request.param, compiled=False)


def able(precision: str, compiled: bool) -> str:
    """It, where this card has it."""
    try:
        require_compiled(precision, GPU, compiled)
        return choose_precision(precision, GPU)
    except CheckpointError as reason:
        pytest.skip(str(reason))


def least(precision: str) -> float:
    """The cosine that it must reach beside float32."""
    return {"float32": 0.99999, "bfloat16": 0.999, "float16": 0.9999}.get(precision, 0.98)


def some(kind: Kind, checkpoint: Checkpoint, many: int) -> Any:
    """So many texts, or pictures of unlike shapes, as the tower takes them."""
    texts = kind is TextEncoder
    return own_ids(checkpoint, TEXTS[:many]) if texts else own_pixels(checkpoint, many)


def worst(checkpoint: Checkpoint, encoder: Any, many: int) -> float:
    """The cosine to the CPU's float32 that is least among so many in one call."""
    items = some(type(encoder), checkpoint, many)
    exact = type(encoder).load(checkpoint).embed(items)
    return float(cosines(encoder.embed(items), exact).min())


@pytest.mark.parametrize(("kind", "most"), [(TextEncoder, 300), (ImageEncoder, 80)])
def test_vectors_are_the_cpus(
    checkpoint: Checkpoint, precision: str, kind: Kind, most: int
) -> None:
    """Alone, and more than one batch's worth; pictures of one patch and of many in one batch."""
    encoder = kind.load(checkpoint, GPU, precision)
    for many in (1, 5, most):
        assert worst(checkpoint, encoder, many) >= least(precision)


def test_float32_is_not_rounded_to_tf32(checkpoint: Checkpoint) -> None:
    """Neither by the patches' convolution nor by the matrices."""
    pixels = own_pixels(checkpoint)
    found = ImageEncoder.load(checkpoint, GPU).embed(pixels)
    assert np.abs(found - ImageEncoder.load(checkpoint).embed(pixels)).max() <= 2e-5


@pytest.mark.parametrize(
    ("kind", "many", "near"), [(TextEncoder, 32, 0.9999), (ImageEncoder, 16, 0.999)]
)
def test_an_item_has_one_vector_alone_and_among_others(
    checkpoint: Checkpoint, precision: str, kind: Kind, many: int, near: float
) -> None:
    """Neighbours change no more than the kernel that is chosen for so many rows; a picture is
    padded to the longest of its batch, or not."""
    encoder, items = kind.load(checkpoint, GPU, precision), some(kind, checkpoint, many)
    alone = np.concatenate([encoder.embed(items[row : row + 1]) for row in range(many)])
    assert cosines(alone, encoder.embed(items)).min() >= near


@pytest.mark.parametrize("precision", ["bfloat16", "int8", "float8"])
@pytest.mark.parametrize(
    ("kind", "sizes"),
    [(TextEncoder, (1, 3, 9, 30, 100, 300)), (ImageEncoder, (1, 3, 15, 70))],
)
def test_compiled_vectors_are_those_of_the_cpu(
    inductor: None, kind: Kind, sizes: tuple[int, ...], precision: str
) -> None:
    """Texts of every size, cut and padded, and the same twice; pictures padded to the tower's own
    length, and longer ones beside them."""
    checkpoint = Checkpoint.open(DEMO)
    encoder = kind.load(checkpoint, GPU, able(precision, compiled=True), compile=True)
    for many in sizes:
        assert worst(checkpoint, encoder, many) >= least(precision)
    if kind is TextEncoder:
        ids = some(kind, checkpoint, 30)
        first = encoder.embed(ids)
        encoder.embed(own_ids(checkpoint, TEXTS[100:130]))
        assert (encoder.embed(ids) == first).all()


def test_both_towers_of_a_process_may_be_compiled(inductor: None) -> None:
    """As an Engine has them."""
    checkpoint, texts = Checkpoint.open(DEMO), TEXTS[:5]
    images = [picture(number) for number in range(5)]
    options = {"devices": GPU, "compile": "on", "accept_loss": "on", "precision": "float32"}
    with Engine.open("", **options) as engine:
        said, seen = engine.texts(texts), engine.images(images)
    exact = TextEncoder.load(checkpoint).embed(own_ids(checkpoint, texts))
    assert cosines(said, exact).min() >= least("float32")
    exact = ImageEncoder.load(checkpoint).embed(pixels_of(checkpoint, images))
    assert cosines(seen, exact).min() >= least("float32")


@pytest.mark.parametrize("kind", [TextEncoder, ImageEncoder])
def test_int8_is_refused_uncompiled(kind: Kind) -> None:
    """It would be slower than bfloat16."""
    with pytest.raises(CheckpointError, match="takes --compile on"):
        kind.load(Checkpoint.open(DEMO), GPU, able("int8", compiled=True))


# -- how -------------------------------------------------------------------------------------------


@pytest.fixture
def impatient() -> Iterator[None]:
    """torch raises where it would wait for the card."""
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("many", [1, 6])
@torch.inference_mode()
def test_nothing_waits_for_the_card_before_the_rows_are_read(impatient: None, many: int) -> None:
    """Once each grid is known, alone and padded."""
    checkpoint = Checkpoint.open(DEMO)
    text, images = TorchText.load(checkpoint, GPU), TorchImages.load(checkpoint, GPU)
    ids, pixels = own_ids(checkpoint, TEXTS[:many]), own_pixels(checkpoint, many)
    expected = text.submit(ids)(), images.submit(pixels)()
    torch.cuda.set_sync_debug_mode("error")
    begun = text.submit(ids), images.submit(pixels)
    torch.cuda.set_sync_debug_mode("default")
    for collect, rows in zip(begun, expected, strict=True):
        assert np.abs(collect() - rows).max() <= 1e-5


@pytest.mark.parametrize("kind", [TextEncoder, ImageEncoder])
def test_two_batches_under_way_have_the_rows_of_one_after_the_other(kind: Kind) -> None:
    """To the bit; and nothing of a slot that is free gets into them."""
    checkpoint = Checkpoint.open(DEMO)
    encoder, items = kind.load(checkpoint, GPU), some(kind, checkpoint, 60)
    batches = [items[start : start + 4] for start in range(0, 60, 4)]
    expected = [encoder.embed(batch) for batch in batches]
    spoil(encoder.engine.stream.slots)
    begun = [encoder.submit(batch) for batch in batches[:2]]
    for number, rows in enumerate(expected):
        assert np.array_equal(begun[number](), rows)
        begun += [encoder.submit(batch) for batch in batches[number + 2 : number + 3]]


@pytest.mark.parametrize(("many", "kernel"), [(1, "flash"), (6, "efficient")])
def test_attention_is_flash_or_memory_efficient(many: int, kernel: str) -> None:
    """Flash without a mask; with one the other, and cuDNN's for neither."""
    able("bfloat16", compiled=False)
    checkpoint = Checkpoint.open(DEMO)
    images = TorchImages.load(checkpoint, GPU, "bfloat16")
    with torch.profiler.profile() as profile:
        images.submit(own_pixels(checkpoint, many))()
    layers = len(images.body.layers)
    counts = {event.key: event.count for event in profile.key_averages()}
    assert counts.get(f"aten::_scaled_dot_product_{kernel}_attention", 0) >= layers
    assert not any("cudnn_attention" in key for key in counts)


def test_auto_is_bfloat16_on_a_card_that_has_it() -> None:
    """What the server takes where nothing is said."""
    new = torch.cuda.get_device_capability() >= (8, 0)
    assert choose_precision("auto", GPU) == ("bfloat16" if new else "float32")


# -- served ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """Devices and precision as siglit chooses them."""
    flags = ("--devices", "auto", "--precision", "auto")
    with ServerProcess(*flags) as running:
        yield running


def test_a_server_takes_the_gpu_by_itself_and_says_so(server: ServerProcess) -> None:
    """Both towers, in bfloat16 where the card has it."""
    said: dict[str, Any] = httpx.get(f"{server.url}/info", timeout=60).json()
    assert {one["device"] for one in said["workers"]} == {GPU}
    assert {one["precision"] for one in said["workers"]} == {choose_precision("auto", GPU)}


def test_what_is_served_is_what_the_cpu_computes(server: ServerProcess) -> None:
    """Texts and pictures, over HTTP."""
    checkpoint = Checkpoint.open(DEMO)
    texts, images = TEXTS[:64], [picture(number) for number in range(8)]
    with Client(server.url) as client:
        said, seen = client.embed_texts(texts), client.embed_images(images)
    assert near(said, TextEncoder.load(checkpoint).embed(own_ids(checkpoint, texts)))
    assert near(seen, ImageEncoder.load(checkpoint).embed(pixels_of(checkpoint, images)))


def test_all_eight_conformance_probes_pass(server: ServerProcess) -> None:
    """What known servers get wrong, asked of one on a card."""
    asked = Server(server.url, None, "string", "/v1/embeddings")
    said: list[str] = []
    assert run(asked, Reference(DEMO), said.append) == 0, said


def pixels_of(checkpoint: Checkpoint, images: list[bytes]) -> list[Pixels]:
    """Model input of encoded pictures."""
    reader, maker = PictureReader(), PixelMaker(checkpoint)
    return [maker.make(reader.read(one)) for one in images]


def near(rows: Any, expected: Vectors) -> bool:
    """As near as bfloat16 comes."""
    return bool(cosines(np.asarray(rows, np.float32), expected).min() >= 0.999)


def test_metrics_show_the_cards_memory_and_utilisation(server: ServerProcess) -> None:
    """The towers are on it, so some is in use."""
    text = httpx.get(f"{server.url}/metrics", timeout=60).text
    used = re.findall(rf'^siglit_gpu_memory_bytes\{{.*device="{GPU}".* (\S+)$', text, re.M)
    assert max(map(float, used)) > 1e6
    assert f'siglit_gpu_utilization_ratio{{device="{GPU}"' in text


def test_a_killed_worker_comes_back_on_its_card(server: ServerProcess) -> None:
    """Its end frees what it held of the card, and the next one answers."""
    checkpoint = Checkpoint.open(DEMO)
    for worker in workers(server):
        os.kill(worker, signal.SIGKILL)
    said = httpx.post(f"{server.url}/embed_text", json={"text": "after"}, timeout=120)
    assert said.status_code == 200
    expected = TextEncoder.load(checkpoint).embed(own_ids(checkpoint, ["after"]))
    assert near([said.json()["embedding"]], expected)
