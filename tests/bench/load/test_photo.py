"""Pictures that stand for photographs."""

import io

import pytest
from PIL import Image

from bench.load.photo import jpeg


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (333, 77), (3, 2)])
def test_a_file_is_a_jpeg_of_that_size(size: tuple[int, int]) -> None:
    """Landscape, portrait, and smaller than a wave; a seed gives the same file, another another."""
    with Image.open(io.BytesIO(jpeg(*size))) as picture:
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", size)
    assert jpeg(64, 48, 1) == jpeg(64, 48, 1) != jpeg(64, 48, 2)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (1920, 1080)])
def test_a_pixel_takes_as_many_bytes_as_in_a_cameras_file(width: int, height: int) -> None:
    """Between a fifth and a half: noise takes three times that, an even picture next to none."""
    assert 0.2 < len(jpeg(width, height)) / (width * height) < 0.5
