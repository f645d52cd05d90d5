import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers

from litapi.errors import TextEmpty, TextInvalid
from litapi.text import canonical

LOWERCASE = normalizers.Lowercase()  # what Siglip2Tokenizer puts before everything else


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A Photo of a RED fox", "a photo of a red fox"), ("ÄÖÜ ÑANDÚ ÇA", "äöü ñandú ça"),
        ("ΟΔΟΣ", "οδοσ"), ("İstanbul", "i̇stanbul"), ("東京タワー 🙂", "東京タワー 🙂"), ("ẞ", "ß"),
    ],
)  # fmt: skip
def test_a_text_is_lower_cased(text: str, expected: str) -> None:
    """Lower case in any alphabet; a final capital sigma is folded like any other."""
    assert canonical(text) == expected


@pytest.mark.parametrize("text", ["  ", " a  b", "a\tb\n", "e\u0301", "\u00e9", "a.b,c!", "\u00a0"])
def test_nothing_but_the_case_is_touched(text: str) -> None:
    """Spaces, punctuation and Unicode composition stay, for the reference keeps them."""
    assert canonical(text) == text


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_it_agrees_with_the_tokenizers_own_lower_casing(text: str) -> None:
    """Tokens of the canonical form are those of the text itself: lower-casing twice is once."""
    assert LOWERCASE.normalize_str(canonical(text)) == LOWERCASE.normalize_str(text)
    assert canonical(canonical(text)) == canonical(text)


@given(st.text(st.characters(codec="ascii"), min_size=1))
def test_the_way_for_ascii_gives_what_the_general_way_gives(text: str) -> None:
    """The shortcut for the usual text changes nothing."""
    assert canonical(text) == canonical(text + "é")[:-1]


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "fox \ud83d", "\udc00\ud800"])
def test_a_lone_surrogate_is_refused(text: str) -> None:
    """JSON can spell half a character; it has no UTF-8 form, so no hash and no tokens."""
    with pytest.raises(TextInvalid):
        canonical(text)


def test_a_text_of_no_characters_is_refused() -> None:
    """There is nothing to embed in it; blanks have tokens, and the reference embeds them."""
    with pytest.raises(TextEmpty):
        canonical("")
