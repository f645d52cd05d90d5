"""The checkpoint that ships, judged as a user would load it."""

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoProcessor,
    AutoTokenizer,
    Siglip2Config,
    Siglip2Model,
    Siglip2Processor,
    Siglip2Tokenizer,
)

from demo.__main__ import FIGURES, FOLDER, make
from demo.batch import batch, families, grid_of, patchify, trained_scenes
from demo.card import card
from demo.exam import Exam
from demo.network import image_vectors, text_vectors
from litapi.demo.drawing import Scene, draw
from litapi.demo.heldout import PAIRS, heldout_scenes
from litapi.demo.judge import recall, retrieval, unit, zero_shot

TOLERANCE = 0.025  # one scene of 48: kernels differ between machines
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def exam() -> Exam:
    return Exam(FOLDER)


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    """What was published with the weights."""
    known: dict[str, Any] = json.loads((FOLDER / FIGURES).read_text())
    return known


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


def test_the_folder_is_small_enough_to_ship() -> None:
    """Code, weights and card together stay within six megabytes."""
    files = [p for p in FOLDER.parent.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert sum(path.stat().st_size for path in files) <= 6 * MEGABYTE


def test_the_auto_classes_load_it_as_they_load_the_hubs(tokenizer: Any) -> None:
    """Model type siglip2 all the way, without a word of ours."""
    assert isinstance(AutoConfig.from_pretrained(FOLDER), Siglip2Config)
    assert isinstance(AutoModel.from_pretrained(FOLDER), Siglip2Model)
    processor = AutoProcessor.from_pretrained(FOLDER)
    assert isinstance(processor, Siglip2Processor)
    assert isinstance(processor.tokenizer, Siglip2Tokenizer)
    assert isinstance(tokenizer, Siglip2Tokenizer)
    assert type(processor.image_processor).__name__.startswith("Siglip2ImageProcessor")


def test_every_character_survives_a_round_trip(tokenizer: Any) -> None:
    """Byte fallback leaves nothing unknown."""
    text = "".join(map(chr, range(32, 127))).lower() + " naïve ☃ 赤い丸"
    row = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in row
    assert tokenizer.decode(row, skip_special_tokens=True) == text


def test_words_are_whole_tokens(tokenizer: Any) -> None:
    """The merges were learned within words and still apply where nothing splits the text."""
    pieces = tokenizer.tokenize("two small red circles on the left.")
    assert pieces == ["two", "▁small", "▁red", "▁circles", "▁on", "▁the", "▁left", "."]


@pytest.mark.parametrize("which", ["heldout", "yardstick_short"])
def test_the_shipped_weights_reproduce_the_published_figures(
    which: str, exam: Exam, figures: dict[str, Any]
) -> None:
    """Recall, zero-shot accuracy and verdicts are those of the JSON beside the weights; at least
    nine of ten held-out pictures and captions find each other first."""
    found, known = exam.figures(which), figures[which]
    for way in ("text_to_image", "image_to_text"):
        assert found["retrieval"][way] == pytest.approx(known["retrieval"][way], abs=TOLERANCE)
        assert which != "heldout" or found["retrieval"][way]["recall@1"] >= 0.90
    for judge in ("zero_shot", "verdicts"):
        assert found[judge] == pytest.approx(known[judge], abs=TOLERANCE)


def test_the_card_is_made_of_the_published_figures(figures: dict[str, Any]) -> None:
    """No number on the card was typed by hand."""
    assert (FOLDER.parent / "README.md").read_text() == card(figures, PAIRS, 7680)


def test_a_right_caption_scores_above_one_half_and_a_stranger_below(exam: Exam) -> None:
    """Scale and bias are trained: the score is a probability that can be read as one."""
    scene = Scene("red", "circle", "large", 2, "left", "white")
    said = [scene.caption(), "a photo of red circles", "a photo of a cat", "three green stars"]
    image, texts = exam.images([draw(scene, 5)]), exam.texts(said)
    logits = np.exp(exam.model.logit_scale.item()) * image @ texts.T + exam.model.logit_bias.item()
    assert (logits[0] > 0).tolist() == [True, True, False, False]


def test_training_computes_the_vectors_that_the_model_gives(exam: Exam) -> None:
    """The short form of a training step agrees with the whole model, mask and padding included."""
    images = [draw(scene, 1) for scene in heldout_scenes()[:6]]
    texts = [scene.caption() for scene in heldout_scenes()[:6]]
    tokens = exam.processor(text=texts, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        rows = [short_vector(exam.model, image) for image in images]
        words = text_vectors(exam.model, tokens).numpy()
    np.testing.assert_allclose(np.concatenate(rows), exam.images(images), atol=1e-4)
    np.testing.assert_allclose(words, exam.texts(texts), atol=1e-4)


def short_vector(model: Siglip2Model, image: Any) -> Any:
    grid = grid_of(image.size, 256)
    return image_vectors(model, torch.from_numpy(patchify(image, grid))[None], grid).numpy()


def test_a_batch_matches_each_caption_with_every_picture_it_is_true_of() -> None:
    """Full captions fit their own picture; partial ones may fit several, strangers none."""
    lesson = batch(families(trained_scenes(), 32, Random(1)), 64, 64, Random(1))
    assert lesson.matches.shape == (64, 32)
    assert lesson.matches[:32].diagonal().all()
    fitting = lesson.matches.sum(axis=1)
    assert (fitting > 1).any()
    strangers = [c for c, many in zip(lesson.captions, fitting, strict=True) if not many]
    assert all("red" not in caption.split() for caption in strangers)


def test_the_same_seed_makes_the_same_weights(tmp_path: Path) -> None:
    """A short remake, twice, is equal to the byte."""
    for name in ("first", "second"):
        make(3, steps=2, out=tmp_path / name)
    first, second = (one.read_bytes() for one in tmp_path.glob("*/model.safetensors"))
    assert first == second


def vectors(*rows: Sequence[float]) -> Any:
    return unit(np.array(rows, dtype=np.float64))


def test_recall_counts_who_comes_first() -> None:
    """Two of three queries find their own answer, all within the first two. A tie is a miss, so a
    broken engine cannot score by giving the same vector to all."""
    answers = vectors([1, 0, 0], [0, 1, 0], [0, 0, 1])
    queries = vectors([1, 0.1, 0], [0.9, 0.8, 0], [0, 0, 1])
    assert recall(queries, answers) == pytest.approx(2 / 3)
    assert recall(queries, answers, k=2) == 1
    assert retrieval(queries, answers, (1,))["image_to_text"]["recall@1"] == pytest.approx(2 / 3)
    same = vectors(*[[1, 1]] * 5)
    assert recall(same, same) == 0


def test_zero_shot_takes_the_nearest_class() -> None:
    """The share of images whose nearest class is the true one."""
    images = vectors([1, 0], [0.2, 1], [1, 0.9])
    assert zero_shot(images, vectors([1, 0], [0, 1]), [0, 1, 1]) == pytest.approx(2 / 3)
