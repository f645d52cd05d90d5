"""Stamped texts and pictures: other bytes each time, the same content."""

import base64
import io
from collections.abc import Callable

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image

from bench.load.item import Caption, Item, Picture, spelt

TAGS = some.integers(0, (1 << 60) - 1)


def encoded(form: str, size: tuple[int, int] = (40, 30)) -> bytes:
    """A small picture with something on it."""
    pixels = np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(size[1], size[0], 3)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """What a picture shows."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


FORMS = pytest.mark.parametrize("form", ["JPEG", "PNG"])


@given(one=TAGS, other=TAGS)
def test_different_tags_are_spelt_differently(one: int, other: int) -> None:
    """And equal ones alike."""
    assert (spelt(one) == spelt(other)) == (one == other)


def test_neighbouring_tags_share_hardly_a_word() -> None:
    """So the texts of a run do not all end alike."""
    words = {word for tag in range(1000, 1100) for word in spelt(tag).split()}
    assert len(words) > 300


@pytest.mark.parametrize("tag", [-1, 1 << 60])
def test_a_tag_that_does_not_fit_is_refused(tag: int) -> None:
    """Cut short it would be another's."""
    with pytest.raises(ValueError, match="60 bits"):
        spelt(tag)


def test_a_stamped_caption_still_begins_with_the_caption() -> None:
    """Its name comes last."""
    item = Caption("a red circle").stamped(5)
    assert item.kind == "text"
    assert item.data.startswith(b"a red circle, by ")
    assert item.media_type == "text/plain"


def test_a_caption_is_quoted_as_json() -> None:
    """Quotes and umlauts survive."""
    item = Caption('a "größer" circle').stamped(5)
    assert orjson.loads(item.quoted) == item.data.decode()


@FORMS
def test_a_stamped_picture_shows_the_same(form: str) -> None:
    """Only its bytes are new: every pixel is as it was."""
    data = encoded(form)
    item = Picture(data).stamped(12345)
    assert item.data != data
    assert (pixels(item.data) == pixels(data)).all()


@FORMS
@given(one=TAGS, other=TAGS)
def test_pictures_with_different_tags_are_different_bytes(form: str, one: int, other: int) -> None:
    """A cache that hashes bytes never meets one twice."""
    picture = Picture(PICTURES[form])
    same = picture.stamped(one).data == picture.stamped(other).data
    assert same == (one == other)


PICTURES = {form: encoded(form) for form in ("JPEG", "PNG")}


@FORMS
@pytest.mark.parametrize("width", range(37, 43))
def test_a_picture_is_quoted_as_a_data_uri_of_the_same_bytes(form: str, width: int) -> None:
    """Base64 done in two parts is that of the whole, whatever the length."""
    item = Picture(encoded(form, (width, 30))).stamped(77)
    head, _, text = orjson.loads(item.quoted).partition(",")
    assert head == f"data:image/{form.lower()};base64"
    assert base64.b64decode(text, validate=True) == item.data


@FORMS
def test_a_stamped_picture_knows_its_media_type(form: str) -> None:
    """It may be sent as it is."""
    assert Picture(encoded(form)).stamped(0).media_type == f"image/{form.lower()}"


def test_the_checksum_of_a_png_stamp_is_right() -> None:
    """A strict reader would refuse a chunk with another."""
    item = Picture(PICTURES["PNG"]).stamped((1 << 60) - 1)
    with Image.open(io.BytesIO(item.data)) as picture:
        picture.verify()
        assert picture.info["Comment"] == f"{(1 << 60) - 1:016x}"


@pytest.mark.parametrize("make", [lambda: Picture(b"GIF89a..."), lambda: Picture(b"")])
def test_other_formats_cannot_be_stamped(make: Callable[[], Picture]) -> None:
    """There is no place in them that is known here."""
    with pytest.raises(KeyError):
        make()


def test_an_item_cannot_be_changed() -> None:
    """It may be in several requests."""
    item = Item("text", b"a", b'"a"')
    with pytest.raises(AttributeError):
        item.kind = "image"  # type: ignore[misc]
