"""The one form of a text that is both hashed for the cache and handed to the tokenizer.

SigLIP 2 was trained on lower-cased text. Two texts with the same canonical form have the same
tokens, so they share a cache entry; nothing else (spaces, accents, Unicode composition) is
touched, for the reference does not touch it either. Lower-casing is done one character at a time,
as the tokenizers library does it, which differs from `str.lower` for the final capital sigma.
"""

from __future__ import annotations

from litapi.errors import TextEmpty, TextInvalid


def canonical(text: str) -> str:
    """`text` in lower case. Raises TextEmpty for a text of no characters and TextInvalid for one
    with a lone surrogate, which has no UTF-8 form and therefore neither a hash nor tokens."""
    if not text:
        raise TextEmpty
    if text.isascii():  # nearly every text; both checks below would pass
        return text.lower()
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TextInvalid from error
    # The capital sigma is the only character whose lower case str.lower takes from its neighbours.
    return text.replace("Σ", "σ").lower()
