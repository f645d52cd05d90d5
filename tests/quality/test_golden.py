"""Published logits: what passes, what fails, and the reason that is named."""

import functools
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps
from transformers import Siglip2Model
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil
from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

from litapi.checkpoint import DEMO, DEMO_NAME, Checkpoint
from litapi.quality.golden import Golden, Shape, draw, encoded
from litapi.quality.mistake import UNKNOWN, reason
from litapi.quality.source import Source, plain
from litapi.scoring import Sigmoid
from tests.support.naive import Naive

NAFLEX = "google/siglip2-base-patch16-naflex"

EXPLAIN = functools.partial(reason, Checkpoint.open(DEMO))
MISTAKES = [
    (Naive(pad=None), "not padded"), (Naive(pad=1), "padded with id 1"),
    (Naive(lower=False), "Capitals"), (Naive(bos=True), "BOS"), (Naive(upright=False), "EXIF"),
    (Naive(resample=Image.Resampling.BICUBIC), "bicubic"),
    (Naive(resample=Image.Resampling.NEAREST), "nearest"), (Naive(aspect=False), "squashed"),
    (Naive(masked=False), "mask"),
]  # fmt: skip


def test_a_right_script_around_transformers_holds_the_demo_s_numbers() -> None:
    """The committed numbers of the demo are what transformers gives, and need no reason."""
    golden = Golden.of(DEMO_NAME)
    verdicts = list(golden.verdicts(Naive().source(), explain=EXPLAIN))
    assert [(one.name, one.passed) for one in verdicts] == [("golden", True)]


@pytest.mark.parametrize(("naive", "word"), MISTAKES, ids=[word for _, word in MISTAKES])
def test_each_mistake_fails_and_is_named(naive: Naive, word: str) -> None:
    """Numbers that are off come with the one mistake that gives just these."""
    golden = Golden.of(DEMO_NAME)
    failed, why = golden.verdicts(naive.source(), explain=EXPLAIN)
    assert not failed.passed
    assert not why.passed
    assert word in why.sentence


def test_vectors_of_another_model_have_no_known_reason() -> None:
    """Where no single mistake gives the found numbers, none is accused."""
    source = replace(Naive().source(), sigmoid=Sigmoid(1.0, 0.0))
    _, why = Golden.of(DEMO_NAME).verdicts(source, explain=EXPLAIN)
    assert why.sentence == UNKNOWN


def test_a_server_that_says_no_scale_is_judged_by_a_fitted_line() -> None:
    """Scale and bias of a foreign server are fitted, and the sentence says so."""
    silent = replace(Naive().source(), sigmoid=None)
    (verdict,) = Golden.of(DEMO_NAME).verdicts(silent)
    assert verdict.passed
    assert "fitted 27.1" in verdict.sentence
    mistaken = replace(Naive(pad=1).source(), sigmoid=None)
    assert not Golden.of(DEMO_NAME).judge(mistaken).passed


def test_a_checkpoint_without_published_numbers_is_empty() -> None:
    """Nobody can be held to numbers that are not there."""
    assert Golden.of("google/siglip2-large-patch16-256").empty
    assert not Golden.of("google/siglip2-base-patch16-224").empty
    assert not Golden.of("some/folder/siglip2-base-patch16-naflex/").empty


@pytest.mark.parametrize("size", [(224, 224), (1024, 1024), (224, 1024)])
def test_the_published_pictures_are_drawn_as_described(size: tuple[int, int]) -> None:
    """To the pixel: red ground, blue disc in the middle, green outline of a width's twentieth."""
    height, width = size
    expected = Image.new("RGB", (width, height), (255, 0, 0))
    radius = min(width // 2, height // 2) // 8 * 7
    left, top = width // 2 - radius, height // 2 - radius
    ImageDraw.Draw(expected).ellipse(
        [(left, top), (left + 2 * radius, top + 2 * radius)],
        fill=(0, 0, 255),
        outline=(0, 128, 0),
        width=width // 20,
    )
    assert draw(Shape(height, width)).tobytes() == expected.tobytes()


def test_a_tall_picture_lies_on_its_side_until_exif_is_heeded() -> None:
    """The bytes that are sent give the drawn picture once they are turned upright."""
    shape = Shape(224, 1024)
    stored = Image.open(io.BytesIO(encoded(shape)))
    assert stored.size == (224, 1024)
    assert ImageOps.exif_transpose(stored).tobytes() == draw(shape).tobytes()


def test_logits_are_those_of_the_whole_model() -> None:
    """Scale times cosine plus bias agrees with what Siglip2Model computes in one go."""
    golden = Golden.of(NAFLEX)
    model = Siglip2Model.from_pretrained(DEMO, dtype=torch.float32).eval()
    processor = Siglip2ImageProcessorPil.from_pretrained(DEMO)
    upright = [ImageOps.exif_transpose(Image.open(io.BytesIO(one))) for one in golden.drawn()]
    made = processor(images=upright, return_tensors="pt")
    ids = Siglip2Tokenizer.from_pretrained(DEMO)(
        list(golden.texts), padding="max_length", max_length=64, return_tensors="pt"
    )["input_ids"]
    with torch.inference_mode():
        whole = model(input_ids=ids, **made).logits_per_text.numpy()
    found = golden.judge(Naive().source()).logits
    np.testing.assert_allclose(found, whole, atol=1e-5)


def test_the_photograph_of_two_cats_is_judged_by_its_probability() -> None:
    """Within half a percent of the published probability, it passes."""
    golden = Golden.of("google/siglip2-base-patch16-224")
    said = {"this is a photo of 2 cats.": 0.15, "a photo of 2 cats": 0.2}
    source = Source(
        "siglip2-base-patch16-224",
        "scripted",
        ask=lambda kind, items: plain(
            np.array([[np.log(1 / said[one] - 1) / -10 if kind == "text" else 1] for one in items])
        ),
        sigmoid=Sigmoid(10.0, 0.0),
    )
    verdicts = list(golden.verdicts(source, b"photo"))
    assert [one.passed for one in verdicts] == [True, False]
    assert verdicts[1].sentence == '"a photo of 2 cats": 20.0%, published 10.6%.'
