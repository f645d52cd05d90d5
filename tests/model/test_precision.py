"""Which precision a device computes in, and what the towers make of each."""

import functools
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from litapi.checkpoint import DEMO, Checkpoint, CheckpointError
from litapi.demo.heldout import heldout_scenes, pictures
from litapi.model.encoder import ImageEncoder, TextEncoder
from litapi.model.engines import choose_engine
from litapi.model.engines.openvino_engine import arithmetic as openvino_arithmetic
from litapi.model.engines.torch_engine import TorchImages, TorchText
from litapi.model.engines.torch_precision import arithmetic, float_type, quantize
from litapi.model.pixels import PixelMaker
from litapi.model.precision import PRECISIONS, choose_precision, require_compiled
from litapi.model.probes import random_ids
from litapi.model.tokens import Tokenizer
from litapi.settings import Precision

CHECKPOINT = Checkpoint.open(DEMO)
SCENES = heldout_scenes()[::4]
ABLE = sorted({choose_precision("auto", "cpu")} - {"float32"})
LEAST = {"bfloat16": 0.9995, "int8": 0.995}


@functools.cache
def both(precision: str) -> list[Any]:
    """The encoders that `items` goes along with."""
    return [kind.load(CHECKPOINT, precision=precision) for kind in (TextEncoder, ImageEncoder)]


@functools.cache
def items() -> tuple[Any, Any]:
    """Ids and pixels of held-out scenes."""
    maker = PixelMaker(CHECKPOINT)
    ids = Tokenizer.load(CHECKPOINT).encode([scene.caption() for scene in SCENES]).ids
    return ids, [maker.make(picture) for picture in pictures(SCENES, "heldout")]


def test_the_options_are_the_precisions_there_are() -> None:
    """Settings must not import torch, so it has the names once more."""
    assert get_args(Precision) == ("auto", *PRECISIONS)


def test_auto_is_bfloat16_where_the_cpu_says_it_multiplies_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the kernel lists its instructions; emulated it would be slower than float32, and is
    refused."""
    for said, chosen in (["avx512_bf16"], "bfloat16"), (["avx2"], "float32"):
        monkeypatch.setattr("litapi.model.precision.processor", lambda device, said=said: said)
        assert choose_precision("auto", "cpu") == choose_precision(chosen, "cpu") == chosen
    with pytest.raises(CheckpointError, match=r"cpu does not compute in bfloat16; use float32\."):
        choose_precision("bfloat16", "cpu")


@pytest.mark.parametrize("precision", ["int8", "int8-weights", "float16"])
def test_torch_computes_in_floats_alone_on_a_cpu(precision: str) -> None:
    """int8 there is OpenVINO's, compiled by nobody; weights in 8 bits alone gain nothing."""
    require_compiled("int8", "cpu", compiled=False)
    with pytest.raises(CheckpointError, match=r"cpu|CPU"):
        choose_precision(precision, "cpu", "torch")
    assert choose_precision("int8", "cpu") == "int8"


@pytest.mark.parametrize(
    ("wanted", "device", "sentence"),
    [
        ("openvino", "cuda:0", "OpenVINO serves on a CPU, not on cuda:0"),
        ("onnx", "cpu", "There is no engine onnx"),
    ],
)
def test_an_engine_that_cannot_run_is_refused(wanted: str, device: str, sentence: str) -> None:
    """In one line, which says what to do."""
    with pytest.raises(CheckpointError, match=sentence):
        choose_engine(wanted, device)


def test_without_the_wheel_a_cpu_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for by name it is refused; a GPU is torch's in any case."""
    assert choose_engine("auto", "cpu") == "openvino"
    assert choose_engine("auto", "cuda:0") == "torch"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert choose_engine("auto", "cpu") == "torch"
    with pytest.raises(CheckpointError, match="openvino is not installed"):
        choose_engine("openvino", "cpu")


def test_float8_is_refused_without_a_gpu_that_is_able() -> None:
    """The reason says which GPUs are; where an encoder is loaded it is the same."""
    for ask in (
        lambda: choose_precision("float8", "cpu"),
        lambda: TextEncoder.load(CHECKPOINT, precision="float8"),
    ):
        with pytest.raises(CheckpointError, match=r"cpu does not compute in float8.* 8\.9 or more"):
            ask()


@pytest.mark.parametrize(
    ("capability", "granted"),
    [
        ((7, 5), {"float16", "float32"}),
        ((8, 6), set(PRECISIONS) - {"float8"}),
        ((8, 9), set(PRECISIONS)),
        ((9, 0), set(PRECISIONS)),
    ],
)
def test_a_gpu_is_judged_by_its_capability(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], granted: set[str]
) -> None:
    """As the driver would say it; there need be no GPU here."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    found = set()
    for precision in PRECISIONS:
        try:
            found.add(choose_precision(precision, "cuda:0"))
        except CheckpointError:
            continue
    assert found == granted


@pytest.mark.parametrize("kind", [TorchText, TorchImages])
def test_int8_on_a_gpu_is_refused_where_it_is_not_compiled(
    monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    """It would wait for the card in every layer; the reason names the option that helps."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    with pytest.raises(CheckpointError, match=r"^int8 on a GPU takes --compile on: [^\n]*$"):
        kind.load(CHECKPOINT, "cuda:0", "int8")


def test_float8_says_what_stays_in_bfloat16(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A matrix with a side that is no multiple of 16, which the card's product cannot take."""
    taken: list[str] = []

    def keep(body: nn.Module, config: Any, filter_fn: Any) -> None:
        taken.extend(name for name, one in body.named_modules() if filter_fn(one, name))

    monkeypatch.setattr("torchao.quantization.quantize_", keep)
    layers = [nn.ModuleDict({"fc1": nn.Linear(32, 40), "fc2": nn.Linear(48, 32)}) for _ in "ab"]
    body = nn.ModuleDict({"layers": nn.ModuleList(layers)})
    quantize(body, [f"layers.{n}.{one}" for n in (0, 1) for one in ("fc1", "fc2")], "float8")
    assert taken == ["layers.0.fc2", "layers.1.fc2"]
    (said,) = caplog.messages
    assert said.startswith("float8: 2 of 4 matrices stay in bfloat16")
    assert said.endswith(": fc1")


def test_what_is_not_quantized_stays_in_bfloat16_on_a_gpu() -> None:
    """float8's scales by row ask for it."""
    assert float_type("int8") == float_type("float8") == torch.bfloat16
    assert (float_type("float32"), float_type("float16")) == (torch.float32, torch.float16)


def test_whatever_decides_the_bits_is_part_of_the_arithmetic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two towers that say the same here give the same vectors."""
    card = torch.device("cuda:0")
    assert arithmetic("int8", card, compiled=False) == "int8, bfloat16, cuda"
    assert arithmetic("bfloat16", card, compiled=True) == "bfloat16, compiled"
    plain = openvino_arithmetic("int8", "5ca1e5" * 4)
    assert plain.startswith(f"int8, {choose_precision('auto', 'cpu')}, openvino 2")
    assert plain.endswith(", scales 5ca1e55ca1e55ca1")
    module = "litapi.model.engines.openvino_engine"
    for name, other in ("processor", ["sve"]), ("core_kind", "another"), ("version", "2099.1"):
        with monkeypatch.context() as patch:
            patch.setattr(f"{module}.{name}", lambda *_, other=other: other)
            assert openvino_arithmetic("int8", "5ca1e5" * 4) != plain


@pytest.mark.parametrize("precision", [*ABLE, "int8"])
def test_vectors_stay_near_float32(precision: str) -> None:
    """Every row of either tower, on the trained checkpoint; packed numbers are as many."""
    for exact, other, some in zip(both("float32"), both(precision), items(), strict=True):
        rows: Any = (exact.embed(some) * other.embed(some)).sum(axis=-1)
        assert rows.min() >= LEAST[precision]
        assert rows.min() < 1 - 1e-7, "nothing was rounded at all"
        assert exact.parameters == other.parameters


def test_int8_keeps_what_is_unlike_the_pairs_it_was_calibrated_on() -> None:
    """Any tokens, and a picture of noise: scales that never saw their like cut them off."""
    ids = random_ids((3, 20, 64, 64), CHECKPOINT.vocabulary, 64, seed=11)
    static = np.random.default_rng(12).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    pixels = [PixelMaker(CHECKPOINT).make(Image.fromarray(static))]
    for exact, small, some in zip(both("float32"), both("int8"), (ids, pixels), strict=True):
        assert (exact.embed(some) * small.embed(some)).sum(axis=-1).min() >= 0.999


def test_only_matrices_that_see_every_token_are_quantized_on_a_gpu() -> None:
    """Tables, patches, norms, heads and what follows the pooling keep their numbers."""
    for tower in (TorchText.load(CHECKPOINT), TorchImages.load(CHECKPOINT)):
        before = {name: weight.clone() for name, weight in tower.body.named_parameters()}
        quantize(tower.body, tower.body.matrices(), "int8-weights")
        linear = [n for n, one in tower.body.named_modules() if isinstance(one, nn.Linear)]
        changed = {
            n for n in linear if _changed(tower.body.get_submodule(n), before[f"{n}.weight"])
        }
        assert changed == set(tower.body.matrices())
    body = TorchText.load(CHECKPOINT).body
    last = f"layers.{len(body.layers) - 1}"
    seen = {f"{last}.self_attn.k_proj", f"{last}.self_attn.v_proj"}
    assert {one for one in body.matrices() if one.startswith(last)} == seen


def _changed(linear: nn.Module, before: torch.Tensor) -> bool:
    weight: Any = linear.weight
    return type(weight.data) is not torch.Tensor or not torch.equal(weight, before)
