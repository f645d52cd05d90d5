from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers.models.siglip2.modeling_siglip2 import Siglip2VisionEmbeddings

from litapi.checkpoint import Checkpoint, CheckpointError
from litapi.model.encoder import ImageEncoder, TextEncoder, choose_precision
from litapi.model.engines.positions import PositionBank, resized
from litapi.model.engines.torch_engine import TorchImages, TorchText
from litapi.model.pixels import PixelMaker
from litapi.model.probes import unit
from litapi.model.reference import Reference
from tests.large_parity import measure
from tests.support.checkpoint import CheckpointMaker
from tests.support.command import python
from tests.support.inputs import Vectors, cosines, own_ids, own_pixels, pictures

TEXTS = ["a photo of a red fox", "A Photo Of A Cat", "x", "the dog " * 40, "naïve 東京"]


@pytest.fixture(scope="module", params=["tiny-naflex", "tiny-fixed"])
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    maker = CheckpointMaker.named(request.param)
    return Checkpoint.open(maker.write(tmp_path_factory.mktemp("encoder") / request.param))


@pytest.fixture(scope="module")
def naflex(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    maker = CheckpointMaker.named("tiny-naflex")
    return Checkpoint.open(maker.write(tmp_path_factory.mktemp("encoder") / "naflex"))


def full_model(checkpoint: Checkpoint) -> Any:
    """Both towers as transformers loads them from the folder: the reference."""
    from transformers import AutoModel

    return AutoModel.from_pretrained(checkpoint.folder).eval()


def features_of(features: Any) -> Vectors:
    pooled = features.pooler_output
    vectors: Vectors = (pooled / pooled.norm(dim=-1, keepdim=True)).numpy()
    return vectors


@pytest.mark.parametrize("tower", ["text", "image"])
@torch.inference_mode()
def test_vectors_equal_the_full_model_of_transformers(checkpoint: Checkpoint, tower: str) -> None:
    """From text or picture to vector: transformers' tokenizer or processor, padding, mask and full
    model, and this service's way."""
    model, reference = full_model(checkpoint), Reference(checkpoint)
    if tower == "text":
        ids = torch.tensor([reference.ids(text) for text in TEXTS])
        expected = features_of(model.get_text_features(input_ids=ids))
        found = TextEncoder.load(checkpoint).embed(own_ids(checkpoint, TEXTS))
    else:
        inputs = reference.processor(images=pictures(), return_tensors="pt")
        expected = features_of(model.get_image_features(**inputs))
        found = ImageEncoder.load(checkpoint).embed(own_pixels(checkpoint))
    assert cosines(found, expected).min() >= 0.99999
    assert np.abs(found - expected).max() <= 1e-4


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_stock_way_through_the_towers_gives_the_same(
    checkpoint: Checkpoint, precision: str
) -> None:
    """What the check at start-up compares with, in both precisions."""
    ids, pixels = own_ids(checkpoint, TEXTS), own_pixels(checkpoint)
    bound = 0.999999 if precision == "float32" else 0.999
    towers: Any = ((TextEncoder, TorchText, ids), (ImageEncoder, TorchImages, pixels))
    for encoder, tower, items in towers:
        stock = unit(tower.load(checkpoint, precision=precision).stock(items))
        for engine in ("torch", "openvino"):
            found = encoder.load(checkpoint, precision=precision, engine=engine).embed(items)
            assert cosines(found, stock).min() >= bound


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_vectors_are_float32_of_unit_length(checkpoint: Checkpoint, precision: str) -> None:
    """Whatever the tower computes in; those of an empty batch are (0, dim)."""
    text = TextEncoder.load(checkpoint, precision=precision)
    image = ImageEncoder.load(checkpoint, precision=precision)
    assert text.embed(np.empty((0, 64), np.int64)).shape == image.embed([]).shape == (0, 32)
    for vectors in (text.embed(own_ids(checkpoint, TEXTS)), image.embed(own_pixels(checkpoint))):
        assert vectors.dtype == np.float32
        assert vectors.flags.c_contiguous
        assert vectors.shape[1] == checkpoint.dim
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)


def masks_of(tower: Any) -> list[torch.Tensor | None]:
    """What its body is told of padding, call by call."""
    found: list[torch.Tensor | None] = []
    tower.body.register_forward_pre_hook(lambda _, told: found.append(told[1]))
    return found


def test_an_image_next_to_a_longer_one_is_masked(naflex: Checkpoint) -> None:
    """Unlike grids really are padded: without the mask the vector would differ."""
    pixels = own_pixels(naflex)
    short, long = min(pixels, key=lambda one: one.cost), max(pixels, key=lambda one: one.cost)
    assert short.cost < long.cost
    encoder = ImageEncoder.load(naflex, engine="torch")
    masks = masks_of(encoder.engine)
    assert cosines(encoder.embed([short]), encoder.embed([short, long])[:1]).min() >= 0.999999
    assert [None if mask is None else (mask > 0).sum(1).tolist() for mask in masks] == [
        None,
        [short.cost, long.cost],
    ]


def test_unlike_grids_of_equally_many_patches_need_no_mask(naflex: Checkpoint) -> None:
    """2 × 8 and 8 × 2 and 4 × 4 are sixteen patches each."""
    maker = PixelMaker(naflex)
    pixels = [maker.make(Image.new("RGB", shape, "teal")) for shape in ((80, 20), (20, 80), (9, 9))]
    assert [picture.grid for picture in pixels] == [(2, 8), (8, 2), (4, 4)]
    tower = TorchImages.load(naflex)
    masks = masks_of(tower)
    assert cosines(unit(tower.submit(pixels)()), unit(tower.stock(pixels))).min() >= 0.999999
    assert masks == [None]


def test_a_request_for_more_patches_is_served(naflex: Checkpoint) -> None:
    """A grid larger than the position table resizes the table up, as the reference does."""
    pixels = [PixelMaker(naflex).make(pictures()[0], 100)]
    assert pixels[0].grid == (10, 10)
    stock = unit(TorchImages.load(naflex).stock(pixels))
    for engine in ("torch", "openvino"):
        found = ImageEncoder.load(naflex, engine=engine).embed(pixels)
        assert cosines(found, stock).min() >= 0.999999


def test_each_encoder_loads_its_own_tower_alone(checkpoint: Checkpoint) -> None:
    """Together the two hold every weight but scale and bias, and neither holds the other's."""
    weights = load_file(checkpoint.folder / "model.safetensors")
    text, image = TextEncoder.load(checkpoint), ImageEncoder.load(checkpoint)
    for encoder, prefix in ((text, "text_model."), (image, "vision_model.")):
        expected = sum(w.numel() for name, w in weights.items() if name.startswith(prefix))
        assert encoder.parameters == expected


def test_loading_prints_nothing(naflex: Checkpoint) -> None:
    """No progress bar, no report on the other tower's weights, no advice."""
    code = (
        "import sys; from litapi.checkpoint import Checkpoint; from litapi.model.encoder import *\n"
        "checkpoint = Checkpoint.open(sys.argv[1])\n"
        "TextEncoder.load(checkpoint), ImageEncoder.load(checkpoint)\n"
    )
    done = python(code, naflex.folder)
    assert (done.stdout, done.stderr) == ("", "")


def test_threads_are_set_where_asked_for(checkpoint: Checkpoint) -> None:
    """A worker is told how many cores are its own."""
    before = torch.get_num_threads()
    try:
        TextEncoder.load(checkpoint, threads=1, engine="torch")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("grid", [(4, 4), (2, 8), (1, 16), (3, 5), (10, 9)])
@torch.inference_mode()
def test_a_position_table_equals_the_references(naflex: Checkpoint, grid: tuple[int, int]) -> None:
    """Smaller, larger, square and long grids: torch's to the bit, numpy's up to rounding."""
    tower = TorchImages.load(naflex)
    square = tower.model.embeddings.position_embedding.weight.reshape(4, 4, -1)
    patches = grid[0] * grid[1]
    expected = Siglip2VisionEmbeddings.resize_positional_embeddings(
        square, torch.tensor([grid]), max_length=patches
    )
    chosen = tower.positions.index([(1, 1), grid], patches + 2)
    found = tower.positions.rows[torch.from_numpy(chosen[1])]
    assert torch.equal(found[:patches], expected[0])
    assert not chosen[:, patches:].any()
    assert not tower.positions.rows[0].any()
    assert np.abs(resized(square.numpy(), grid) - expected[0].numpy()).max() < 1e-6


def test_the_bank_is_bounded_and_gives_each_picture_its_own_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No sequence of grids grows it without end; one batch of more than it holds makes room."""
    made: list[tuple[int, int]] = []

    def resize(grid: tuple[int, int]) -> Vectors:
        """A table that holds its grid in every row."""
        made.append(grid)
        return np.full((grid[0] * grid[1], 2), grid, np.float32)

    monkeypatch.setattr("litapi.model.engines.positions.KEPT_POSITIONS", 40)
    tables = PositionBank(resize, lambda rows: np.zeros((rows, 2), np.float32))
    for grids in ([(2, 5), (2, 10)], [(1, 10)], [(3, 5), (2, 5)], [(2, 5), (4, 9)], [(50, 50)]):
        index = tables.index(grids, 2600)
        for row, (down, across) in zip(tables.rows[index], grids, strict=True):
            assert (row[: down * across] == (down, across)).all()
            assert not row[down * across :].any()
        assert len(tables.rows) == (2501 if (50, 50) in grids else 47 if (4, 9) in grids else 40)
    assert made.count((2, 5)) == 3


@pytest.mark.parametrize("wanted", ["int4", "float64", "", "FLOAT32"])
def test_a_precision_there_is_not_is_refused(naflex: Checkpoint, wanted: Any) -> None:
    """Named, not ignored; the same where an encoder is loaded."""
    with pytest.raises(CheckpointError, match="no precision"):
        choose_precision(wanted, "cpu")
    with pytest.raises(CheckpointError, match="no precision"):
        TextEncoder.load(naflex, precision=wanted)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "tpu:0"])
def test_a_device_there_is_not_is_refused_in_one_line(naflex: Checkpoint, device: str) -> None:
    """A misspelt or missing device is an error at start, not at the first request."""
    with pytest.raises(CheckpointError, match=device):
        choose_precision("auto", device)
    with pytest.raises(CheckpointError, match=device):
        ImageEncoder.load(naflex, device)


@pytest.mark.large
@pytest.mark.timeout(600)
@pytest.mark.parametrize("size", ["base-patch16-224", "so400m-patch16-naflex"])
@pytest.mark.parametrize("tower", ["text", "image"])
def test_true_sizes_keep_parity_in_both_precisions(size: str, tower: str) -> None:
    """float32 to 1e-4 and bfloat16 to cosine 0.999, of the float32 reference, random weights."""
    found = measure(size, tower)
    assert [parity.precision for parity in found] == ["float32", "bfloat16"]
    for parity in found:
        assert parity.holds, parity
