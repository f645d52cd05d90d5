"""Stamped texts and pictures: other bytes each time, the same content."""

import base64
import io

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image

from bench.load.workload import Caption, Picture, spelt

LARGEST = (1 << 60) - 1
TAGS = some.integers(0, LARGEST)
FORMS = pytest.mark.parametrize("form", ["JPEG", "PNG"])


def encoded(form: str, size: tuple[int, int] = (40, 30)) -> bytes:
    """A small picture with something on it."""
    shown = np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(size[1], size[0], 3)
    buffer = io.BytesIO()
    Image.fromarray(shown).save(buffer, form)
    return buffer.getvalue()


PICTURES = {form: encoded(form) for form in ("JPEG", "PNG")}


@given(one=TAGS, other=TAGS)
def test_different_tags_are_spelt_differently(one: int, other: int) -> None:
    """And equal ones alike."""
    assert (spelt(one) == spelt(other)) == (one == other)


@pytest.mark.parametrize("tag", [-1, LARGEST + 1])
def test_a_tag_that_does_not_fit_is_refused(tag: int) -> None:
    """Cut short it would be another's."""
    with pytest.raises(ValueError, match="60 bits"):
        spelt(tag)


def test_a_caption_keeps_its_words_and_is_quoted_as_json() -> None:
    """Its name comes last; quotes and umlauts survive."""
    item = Caption('a "größer" circle').stamped(5)
    assert (item.kind, item.media_type) == ("text", "text/plain")
    assert item.data.decode().startswith('a "größer" circle, by ')
    assert orjson.loads(item.quoted) == item.data.decode()


@FORMS
def test_a_stamped_picture_shows_the_same(form: str) -> None:
    """Only its bytes are new: every pixel is as it was, and it may be sent as it is."""
    data = encoded(form)
    item = Picture(data).stamped(12345)
    before, after = (np.asarray(Image.open(io.BytesIO(one))) for one in (data, item.data))
    assert item.data != data
    assert (before == after).all()
    assert item.media_type == f"image/{form.lower()}"


@FORMS
@given(one=TAGS, other=TAGS)
def test_pictures_with_different_tags_are_different_bytes(form: str, one: int, other: int) -> None:
    """A cache that hashes bytes never meets one twice."""
    picture = Picture(PICTURES[form])
    assert (picture.stamped(one).data == picture.stamped(other).data) == (one == other)


@FORMS
@pytest.mark.parametrize("width", range(37, 43))
def test_a_picture_is_quoted_as_a_data_uri_of_the_same_bytes(form: str, width: int) -> None:
    """Base64 done in two parts is that of the whole, whatever the length."""
    item = Picture(encoded(form, (width, 30))).stamped(77)
    head, _, text = orjson.loads(item.quoted).partition(",")
    assert head == f"data:image/{form.lower()};base64"
    assert base64.b64decode(text, validate=True) == item.data


def test_the_checksum_of_a_png_stamp_is_right() -> None:
    """A strict reader would refuse a chunk with another."""
    item = Picture(PICTURES["PNG"]).stamped(LARGEST)
    with Image.open(io.BytesIO(item.data)) as picture:
        picture.verify()
        assert picture.info["Comment"] == f"{LARGEST:016x}"
