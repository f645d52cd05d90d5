"""Texts to token ids, the SigLIP 2 way: the whole 64 positions are part of the function.

Lower case, then tokens, then EOS (id 1), no BOS, cut at 64 keeping EOS, padded on the right with
id 0 to exactly 64, and no mask: the model pools the last position, so a pad too few or on the
wrong side silently gives another vector. `Siglip2Tokenizer` builds the tokenizer, whatever class
a checkpoint names (fixed-resolution ones name Gemma's, which does not lower-case); cutting and
padding are done here, so nothing rests on the checkpoint's own padding settings and no call
changes the tokenizer, which makes it safe to use from several threads.

A text that spells a special token, such as "<eos>", becomes that token, as in the reference; in
capitals too, for the text is lower-cased first, as big_vision did in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from litapi.checkpoint import Checkpoint, CheckpointError
from litapi.text import canonical

if TYPE_CHECKING:
    import tokenizers

LENGTH = 64
PAD = 0
EOS = 1
BOS = 2


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids of n texts. `ids` is int64 of shape (n, 64). `counts` are the tokens of each before
    its pads, EOS included; `truncated` says which texts had more than fit."""

    ids: npt.NDArray[np.int64]
    counts: list[int]
    truncated: list[bool]


class Tokenizer:
    """Encodes texts for the text tower."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        """Takes `backend` over: its own truncation and padding are switched off."""
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> Self:
        """The tokenizer of `checkpoint`. Raises CheckpointError where it cannot be loaded."""
        return cls(load_reference(checkpoint).backend_tokenizer)

    def encode(self, texts: Sequence[str], *, ending: bool = False) -> Tokens:
        """The tokens of `texts`; with `ending` the last ones of a text that has too many. Raises
        TextEmpty or TextInvalid for one that has none."""
        found = self.backend.encode_batch_fast([canonical(text) for text in texts])
        rows = [encoding.ids for encoding in found]
        ids = np.full((len(rows), LENGTH), PAD, dtype=np.int64)
        for row, tokens in zip(ids, rows, strict=True):
            short = tokens if ending or len(tokens) <= LENGTH else [*tokens[: LENGTH - 1], EOS]
            row[: len(tokens)] = short[-LENGTH:]  # the last token is EOS in any case
        return Tokens(
            ids,
            counts=[min(len(tokens), LENGTH) for tokens in rows],
            truncated=[len(tokens) > LENGTH for tokens in rows],
        )


def load_reference(checkpoint: Checkpoint) -> Any:
    """transformers' `Siglip2Tokenizer` for `checkpoint`, with the settings its folder gives it."""
    # Not from the package's top: AutoTokenizer and its like would load torch.
    from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

    try:
        return Siglip2Tokenizer.from_pretrained(checkpoint.folder, local_files_only=True)
    except Exception as error:  # the library raises whatever its parser met
        raise CheckpointError(f"The tokenizer in {checkpoint.folder} cannot be loaded.") from error
