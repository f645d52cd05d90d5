from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import (
    Siglip2ImageProcessorPil,
    get_image_size_for_max_num_patches,
)

from litapi.checkpoint import Checkpoint
from litapi.model.pixels import PixelMaker, grid_for, normalise_table
from tests.support.checkpoint import CheckpointMaker, edit_json

SHAPES = [  # width, height
    *((640, 480), (480, 640), (300, 300), (1920, 1080), (4000, 3000), (1, 1), (2, 1), (3, 3)),
    *((3, 200), (500, 1), (1, 500), (20_000, 10), (10, 20_000), (255, 257), (16, 16), (256, 256)),
]
SIDES = st.integers(1, 30_000)
REFERENCES: dict[str, Any] = {
    "naflex": Siglip2ImageProcessorPil(),
    "fixed": SiglipImageProcessorPil(resample=2, size={"height": 224, "width": 224}),
}


@pytest.fixture(scope="module")
def makers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PixelMaker]:
    """A maker of each type at the geometry of the hub's checkpoints: patches of 16 pixels."""
    home = tmp_path_factory.mktemp("pixels")
    naflex = CheckpointMaker.named("tiny-naflex", patch=16)
    fixed = CheckpointMaker.named("tiny-fixed", patch=16, image=224)
    made = {"naflex": naflex.write(home / "naflex"), "fixed": fixed.write(home / "fixed")}
    edit_json(home / "naflex" / "preprocessor_config.json", max_num_patches=256)
    return {name: PixelMaker(Checkpoint.open(folder)) for name, folder in made.items()}


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def assert_equal_to_reference(
    maker: PixelMaker, picture: Image.Image, reference: Any, max_num_patches: int = 256
) -> None:
    """Values to the bit, grid, and number of patches, for either type."""
    pixels = maker.make(picture, max_num_patches)
    assert pixels.patches.dtype == np.uint8
    assert pixels.patches.flags.c_contiguous
    values = maker.table[pixels.patches]
    assert values.dtype == np.float32
    if not maker.naflex:
        expected = reference(images=picture, return_tensors="np")
        assert np.array_equal(values.transpose(2, 0, 1), expected["pixel_values"][0])
        return
    expected = reference(images=picture, max_num_patches=max_num_patches, return_tensors="np")
    assert pixels.grid == tuple(expected["spatial_shapes"][0])
    assert pixels.cost == expected["pixel_attention_mask"][0].sum() == len(values)
    assert np.array_equal(values, expected["pixel_values"][0][: pixels.cost])


@pytest.mark.parametrize("kind", ["naflex", "fixed"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pixels_equal_the_reference_processor_to_the_bit(
    makers: dict[str, PixelMaker], kind: str, shape: tuple[int, int]
) -> None:
    """Landscape, portrait, square, a line, a point, a giant: the very same float32 values."""
    assert_equal_to_reference(makers[kind], noise(*shape), REFERENCES[kind])


@pytest.mark.parametrize("kind", ["naflex", "fixed"])
@settings(max_examples=60)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 9))
def test_pixels_of_any_size_equal_the_reference(
    makers: dict[str, PixelMaker], kind: str, width: int, height: int, seed: int
) -> None:
    """The same for sizes that nobody thought of."""
    assert_equal_to_reference(makers[kind], noise(width, height, seed), REFERENCES[kind])


@pytest.mark.parametrize("patches", [1, 16, 255, 576, 1024])
def test_a_request_may_ask_for_its_own_number_of_patches(
    makers: dict[str, PixelMaker], patches: int
) -> None:
    """NaFlex pictures at another number of patches equal the reference too; 0 is the default."""
    picture = noise(321, 123)
    assert_equal_to_reference(makers["naflex"], picture, REFERENCES["naflex"], patches)
    assert makers["naflex"].make(picture, patches).cost <= patches
    assert makers["naflex"].make(noise(100, 100)).cost == 256


def test_a_fixed_resolution_knows_one_number_of_patches(makers: dict[str, PixelMaker]) -> None:
    """Asking for another changes nothing."""
    maker, picture = makers["fixed"], noise(100, 80)
    asked, plain = maker.make(picture, 64), maker.make(picture)
    assert np.array_equal(asked.patches, plain.patches)
    assert asked.grid == plain.grid == (14, 14)


@settings(max_examples=400)
@given(SIDES, SIDES, st.sampled_from([4, 14, 16]), st.integers(1, 2048))
def test_the_grid_is_the_one_the_reference_finds(
    height: int, width: int, patch: int, patches: int
) -> None:
    """Both bisections end at the same grid, whatever the picture; its cost is bounded."""
    expected = get_image_size_for_max_num_patches(height, width, patch, patches)
    down, across = grid_for(height, width, patch, patches)
    assert (down * patch, across * patch) == expected
    assert min(down, across) >= 1
    assert down * across <= patches


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.5), (0.4, 0.3), (0.0, 1.0)])
def test_the_table_follows_the_processors_numbers(mean: float, std: float) -> None:
    """Other numbers give the reference's other values, as a list or as one number."""
    numbers = {"image_mean": [mean] * 3, "image_std": std, "rescale_factor": 1 / 255}
    processor = Siglip2ImageProcessorPil(
        max_num_patches=1, image_mean=[mean] * 3, image_std=[std] * 3
    )
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3))
    values = processor(images=ramp, return_tensors="np")["pixel_values"][0, 0, ::3]
    assert np.array_equal(normalise_table(numbers), values)


def test_a_folders_own_settings_are_used(tmp_path: Path) -> None:
    """Patch size and number of patches of the checkpoint, not the library's 16 and 256."""
    folder = CheckpointMaker.named("tiny-naflex").write(tmp_path / "tiny")
    maker = PixelMaker(Checkpoint.open(folder))
    reference = Siglip2ImageProcessorPil.from_pretrained(folder)
    assert (maker.patch_size, maker.max_num_patches) == (4, 16)
    assert_equal_to_reference(maker, noise(50, 31), reference, 16)
