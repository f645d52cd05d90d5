"""What could be wrong with a server whose logits are not the published ones.

Each mistake is made on purpose with transformers' own model and processors, and its logits are
held against those that were found: the one that gives the same numbers is the reason. Every one of
them was met in servers or scripts of this field, and none raises an error anywhere.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from PIL import Image, ImageOps

from litapi.checkpoint import Checkpoint
from litapi.model.reference import Ids, Inputs, MakeIds, MakeInputs, Reference
from litapi.model.tokens import BOS, EOS, LENGTH, PAD
from litapi.quality.golden import Golden
from litapi.scoring import Array

NEAR = 5e-3  # of a logit, absolute and relative: another library's rounding, not another mistake


def upright(reference: Reference, data: bytes) -> Inputs:
    return reference.inputs(_turned(data))


def _turned(data: bytes) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data)))


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
    for sentence, ids in TEXTS.items():
        yield sentence, reference.logits(reference.texts(golden.texts, ids), pictures)
    for sentence, inputs in (PICTURES | (SHAPES if checkpoint.naflex else {})).items():
        yield sentence, reference.logits(texts, reference.pictures(drawn, inputs))


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


TEXTS: dict[str, MakeIds] = {
    "Texts are not padded to 64 tokens.": _unpadded,
    "Texts are padded with id 1, not 0.": partial(_padded, pad=EOS),
    "Capitals are kept; SigLIP 2 lower-cases every text.": _cased,
    "Texts begin with BOS; SigLIP 2 puts nothing before them.": partial(_padded, before=[BOS]),
}
PICTURES: dict[str, MakeInputs] = {
    "The EXIF orientation of pictures is ignored.": _as_stored,
    **{
        f"Pictures are resized by {one.name.lower()}, not bilinear.": partial(
            _resized, resample=one
        )
        for one in Image.Resampling
        if one != Image.Resampling.BILINEAR
    },
}
SHAPES: dict[str, MakeInputs] = {  # where pictures keep their aspect ratio
    "Pictures are squashed to a square.": _squashed,
    "The mask of padded patches is ignored.": _unmasked,
}
