from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

from litapi.checkpoint import DEMO, Checkpoint
from litapi.errors import TextEmpty, TextInvalid
from litapi.model.tokens import EOS, PAD, Tokenizer
from tests.support.checkpoint import CheckpointMaker

TEXTS = [
    "a photo of a red fox", "A Photo Of A RED Fox", "x", " ", "  two  spaces ",
    "naïve café ΟΔΟΣ İstanbul", "東京タワー 🙂👩‍👩‍👧", "a\tb\nc", "<eos> in the middle",
    "the dog " * 100, "…" * 500,
]  # fmt: skip


@pytest.fixture(scope="module", params=["tiny-naflex", "tiny-fixed", "demo"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A NaFlex folder, a fixed one that names Gemma's tokenizer, and the one that ships."""
    if request.param == "demo":
        return DEMO
    maker = CheckpointMaker.named(request.param)
    return maker.write(tmp_path_factory.mktemp("tokens") / request.param)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(Checkpoint.open(folder))


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    return Siglip2Tokenizer.from_pretrained(folder)


def reference_ids(reference: Any, texts: list[str]) -> np.ndarray[Any, Any]:
    made = reference(texts, padding="max_length", truncation=True, max_length=64)
    return np.array(made["input_ids"])


def test_ids_equal_the_reference_tokenizers(tokenizer: Tokenizer, reference: Any) -> None:
    """Every probe text, together in one batch and alone."""
    expected = reference_ids(reference, TEXTS)
    assert np.array_equal(tokenizer.encode(TEXTS).ids, expected)
    for text, row in zip(TEXTS, expected, strict=True):
        assert np.array_equal(tokenizer.encode([text]).ids, row[None])


@settings(max_examples=200)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=120))
def test_ids_of_any_text_equal_the_reference(
    tokenizer: Tokenizer, reference: Any, text: str
) -> None:
    """Any Unicode text at all."""
    assert np.array_equal(tokenizer.encode([text]).ids, reference_ids(reference, [text]))


def test_ids_are_64_wide_and_padded_on_the_right_with_zeros(tokenizer: Tokenizer) -> None:
    """The whole 64 positions are part of the function; texts without tokens are refused."""
    assert tokenizer.encode([]).ids.shape == (0, 64)
    for text, error in (("", TextEmpty), ("a\ud800", TextInvalid)):
        with pytest.raises(error):
            tokenizer.encode([text])
    tokens = tokenizer.encode(["a red fox", "x"])
    assert tokens.ids.shape == (2, 64)
    assert tokens.ids.dtype == np.int64
    for row, count in zip(tokens.ids, tokens.counts, strict=True):
        assert (row[count:] == PAD).all()
        assert row[count - 1] == EOS
        assert (row[: count - 1] > EOS).all()


@pytest.mark.parametrize(
    ("before_eos", "count", "truncated"),
    [
        (1, 2, False), (61, 62, False), (62, 63, False), (63, 64, False), (64, 64, True),
        (65, 64, True),
    ],
)  # fmt: skip
def test_truncation_begins_where_eos_no_longer_fits(
    tokenizer: Tokenizer, before_eos: int, count: int, truncated: bool
) -> None:
    """63 tokens and EOS fit; the 64th makes the text cut, and EOS stays."""
    tokens = tokenizer.encode(["q" * before_eos])
    assert (tokens.counts, tokens.truncated) == ([count], [truncated])
    assert tokens.ids[0, count - 1] == EOS


def test_the_end_of_a_text_may_be_kept_instead(tokenizer: Tokenizer) -> None:
    """Its last 63 tokens and EOS; a text that fits is the same either way."""
    cut, end, short = tokenizer.encode(["abc" * 30 + "q" * 63, "q" * 63, "x"], ending=True).ids
    assert np.array_equal(cut, end)
    assert np.array_equal(short, tokenizer.encode(["x"]).ids[0])
    assert not np.array_equal(cut, tokenizer.encode(["abc" * 30 + "q" * 63]).ids[0])


def test_a_special_token_spelled_in_capitals_is_the_special_token(tokenizer: Tokenizer) -> None:
    """Lower-casing comes first, as in training, so equal cache keys mean equal ids."""
    upper, lower = tokenizer.encode(["<EOS> x", "<eos> x"]).ids
    assert np.array_equal(upper, lower)


def test_many_threads_may_encode_at_once(tokenizer: Tokenizer) -> None:
    """No call changes the tokenizer: long and short batches mixed give what they give alone."""
    batches = [TEXTS[:3], TEXTS[9:], ["x"], TEXTS] * 50
    alone = [tokenizer.encode(batch).ids for batch in batches]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda batch: tokenizer.encode(batch).ids, batches))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_padding_baked_into_the_tokenizer_file_is_of_no_effect(tmp_path: Path) -> None:
    """Truncation and padding stored in tokenizer.json neither shorten nor shift a text."""
    maker = CheckpointMaker.named("tiny-naflex")
    folder = maker.write(tmp_path / "baked")
    expected = Tokenizer.load(Checkpoint.open(folder)).encode(TEXTS).ids
    baked = maker.tokenizer()
    baked.enable_padding(direction="left", pad_id=3, pad_token="<unk>", length=9)
    baked.enable_truncation(5)
    baked.save(str(folder / "tokenizer.json"))
    assert np.array_equal(Tokenizer.load(Checkpoint.open(folder)).encode(TEXTS).ids, expected)
