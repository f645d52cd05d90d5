"""What could be wrong with a server whose logits are not the published ones.

Each mistake is made on purpose with transformers' own model and processors, and its logits are
held against those that were found: the one that gives the same numbers is the reason. Every one of
them was met in servers or scripts of this field, and none raises an error anywhere.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageOps

from litapi.checkpoint import Checkpoint
from litapi.model.reference import Ids, Inputs, MakeIds, MakeInputs, Reference
from litapi.model.tokens import BOS, EOS, LENGTH, PAD
from litapi.quality.golden import Golden
from litapi.scoring import Array

NEAR = 5e-3  # of a logit, absolute and relative: another library's rounding, not another mistake
FILTERS = tuple(one for one in Image.Resampling if one != Image.Resampling.BILINEAR)


def upright(reference: Reference, data: bytes) -> Inputs:
    return reference.inputs(_turned(data))


def _turned(data: bytes) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data)))


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing done wrong, with texts or with pictures, and a sentence that says what."""

    sentence: str
    ids: MakeIds | None = None
    inputs: MakeInputs | None = None


SAME = (
    "transformers' own forward gives the found numbers on this machine too: the checkpoint or the "
    "library is another one than the published numbers are from."
)
UNKNOWN = "No single mistake that is known here gives these numbers."


def reason(checkpoint: Checkpoint, golden: Golden, found: Array) -> str:
    near = [
        (float(np.abs(logits - found).max()), sentence)
        for sentence, logits in _candidates(checkpoint, golden)
        if np.allclose(logits, found, rtol=NEAR, atol=NEAR)
    ]
    return min(near)[1] if near else UNKNOWN


def right(reference: Reference, golden: Golden) -> tuple[Array, Array]:
    texts = reference.texts(golden.texts, Reference.ids)
    return texts, reference.pictures(golden.drawn(), upright)


def _candidates(checkpoint: Checkpoint, golden: Golden) -> Iterator[tuple[str, Array]]:
    reference, drawn = Reference(checkpoint), golden.drawn()
    texts, pictures = right(reference, golden)
    yield SAME, reference.logits(texts, pictures)
    for one in mistakes(checkpoint.naflex):
        rows = reference.texts(golden.texts, one.ids) if one.ids else texts
        columns = reference.pictures(drawn, one.inputs) if one.inputs else pictures
        yield one.sentence, reference.logits(rows, columns)


def mistakes(naflex: bool) -> Iterator[Mistake]:
    """All that is known; some can only be made where pictures keep their aspect ratio."""
    yield Mistake("Texts are not padded to 64 tokens.", ids=_unpadded)
    yield Mistake("Texts are padded with id 1, not 0.", ids=partial(_padded, pad=EOS))
    yield Mistake("Capitals are kept; SigLIP 2 lower-cases every text.", ids=_cased)
    begun = partial(_padded, before=[BOS])
    yield Mistake("Texts begin with BOS; SigLIP 2 puts nothing before them.", ids=begun)
    yield Mistake("The EXIF orientation of pictures is ignored.", inputs=_as_stored)
    for one in FILTERS:
        sentence = f"Pictures are resized by {one.name.lower()}, not bilinear."
        yield Mistake(sentence, inputs=partial(_resized, resample=one))
    if naflex:
        yield Mistake("Pictures are squashed to a square.", inputs=_squashed)
        yield Mistake("The mask of padded patches is ignored.", inputs=_unmasked)


def _unpadded(reference: Reference, text: str) -> Ids:
    return [one for one in reference.ids(text) if one != PAD]


def _padded(reference: Reference, text: str, pad: int = PAD, before: Sequence[int] = ()) -> Ids:
    ids = [*before, *_unpadded(reference, text)][:LENGTH]
    return ids + [pad] * (LENGTH - len(ids))


def _cased(reference: Reference, text: str) -> Ids:
    """The tokenizer without the step that lower-cases, which stands first."""
    backend = reference.tokenizer.backend_tokenizer
    folding = backend.normalizer
    backend.normalizer = folding[1]
    try:
        return reference.ids(text)
    finally:
        backend.normalizer = folding


def _as_stored(reference: Reference, data: bytes) -> Inputs:
    return reference.inputs(Image.open(io.BytesIO(data)))


def _resized(reference: Reference, data: bytes, resample: Image.Resampling) -> Inputs:
    return reference.inputs(_turned(data), resample=resample)


def _squashed(reference: Reference, data: bytes) -> Inputs:
    side = reference.checkpoint.image_size
    return reference.inputs(_turned(data).resize((side, side), Image.Resampling.BILINEAR))


def _unmasked(reference: Reference, data: bytes) -> Inputs:
    inputs = dict(upright(reference, data))
    inputs["pixel_attention_mask"] = inputs["pixel_attention_mask"] * 0 + 1
    return inputs
