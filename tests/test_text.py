import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers

from litapi.errors import ItemError, TextEmpty, TextInvalid
from litapi.text import canonical

LOWERCASE = normalizers.Lowercase()  # what Siglip2Tokenizer puts before everything else


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A Photo of a RED fox", "a photo of a red fox"), ("ÄÖÜ ÑANDÚ ÇA", "äöü ñandú ça"),
        ("ΟΔΟΣ", "οδοσ"), ("İstanbul", "i̇stanbul"), ("東京タワー 🙂", "東京タワー 🙂"), ("ẞ", "ß"),
        *((same, same) for same in ("  ", " a  b", "a\tb\n", "e\u0301", "\u00e9", "a.b,c!")),
        ("\u00a0", "\u00a0"),
    ],
)  # fmt: skip
def test_a_text_is_lower_cased_and_nothing_else(text: str, expected: str) -> None:
    """In any alphabet; a final capital sigma is folded like any other. Spaces, punctuation and
    Unicode composition stay, for the reference keeps them."""
    assert canonical(text) == expected


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_it_agrees_with_the_tokenizers_own_lower_casing(text: str) -> None:
    """Tokens of the canonical form are those of the text itself: lower-casing twice is once."""
    assert LOWERCASE.normalize_str(canonical(text)) == LOWERCASE.normalize_str(text)
    assert canonical(canonical(text)) == canonical(text)


@given(st.text(st.characters(codec="ascii"), min_size=1))
def test_the_way_for_ascii_gives_what_the_general_way_gives(text: str) -> None:
    """The shortcut for the usual text changes nothing."""
    assert canonical(text) == canonical(text + "é")[:-1]


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        *((half, TextInvalid) for half in ("\ud800", "a\udfff", "fox \ud83d", "\udc00\ud800")),
        ("", TextEmpty),
    ],
)
def test_half_a_character_and_no_character_are_refused(text: str, refusal: type[ItemError]) -> None:
    """JSON can spell a lone surrogate; it has no UTF-8 form, so no hash and no tokens. Blanks have
    tokens, and the reference embeds them."""
    with pytest.raises(refusal):
        canonical(text)
