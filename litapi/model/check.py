"""Does this checkpoint, on this machine, give the vectors that SigLIP 2 was trained to give?

Every rule here was broken by some folder laid out like the hub's without a word from any library:
the vectors come out, unit length and wrong. So the rules are looked at one by one, on what
transformers makes of the folder's own files, and each gives a finding; the server refuses to
start on one that failed. The last two compare: own tokens and pixels with the reference's, equal
to the bit, and the own way through a tower with transformers' own on a small probe. Where an engine
keeps what transformers made of the probes, it is not made again at each start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from litapi.checkpoint import Checkpoint, CheckpointError
from litapi.model.pixels import PixelMaker
from litapi.model.probes import probe_pictures, probe_values
from litapi.model.tokens import BOS, EOS, LENGTH, PAD, Tokenizer, load_reference

if TYPE_CHECKING:
    from litapi.model.encoder import ImageEncoder, TextEncoder

log = logging.getLogger("siglit.check")

LONG = "a photo of a red fox, " * 30
PROBE_TEXTS = ("A Photo of a RED fox", "x", LONG, "naïve ΟΔΌΣ 東京 🙂 café")
BILINEAR = 2
# what libraries raise over a file that says null, or a word, where they expect a number
WRONG = (CheckpointError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


# What each precision must keep here; how much is lost on true pictures is the quality gate's.
LEAST = {"bfloat16": 0.999, "float16": 0.999, "int8-weights": 0.99, "int8": 0.95, "float8": 0.95}


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule looked at: its name, whether it holds, and one public sentence."""

    name: str
    passed: bool
    sentence: str


def check(checkpoint: Checkpoint, engine: str = "auto", cache: Path | None = None) -> list[Finding]:
    """All findings on the CPU in float32, loading one tower after the other.

    `cache` is the folder of converted towers. The encoders stand alone: an engine says no word of
    what passed, and refuses to load what failed.
    """
    from litapi.model.encoder import ImageEncoder, TextEncoder

    how: Any = {"engine": engine, "cache": cache}
    return [
        *_alone("text", lambda: check_text(checkpoint, TextEncoder.load(checkpoint, **how))),
        *_alone("image", lambda: check_image(checkpoint, ImageEncoder.load(checkpoint, **how))),
    ]


def _alone(tower: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return look()
    except Exception as error:
        return [Finding(f"{tower}_tower", False, _reason(error))]


def _reason(error: Exception) -> str:
    if isinstance(error, CheckpointError):
        return str(error)
    log.debug("a check failed", exc_info=error)
    return f"A library cannot make anything of this folder's files ({type(error).__name__})."


# ---- text ----------------------------------------------------------------------------------------


def check_text(
    checkpoint: Checkpoint, encoder: TextEncoder | None, reference: Any = None
) -> list[Finding]:
    """Findings on the tokenizer and, where `encoder` is given, on the text tower. `reference` is
    transformers' tokenizer where it is loaded already."""
    try:
        if reference is None:
            reference = load_reference(checkpoint)
        # The tokens last, for their tokenizer takes the reference's backend over; loading Gemma's
        # twice is slow.
        findings = [*_text_rules(checkpoint, reference), _tokens(reference)]
        if encoder is not None and all(finding.passed for finding in findings):
            findings.append(_parity("text_tower", encoder))
    except WRONG as error:
        return [Finding("tokenizer", False, _reason(error))]
    return findings


def _text_rules(checkpoint: Checkpoint, reference: Any) -> list[Finding]:
    short, cut = _plain_ids(reference, "x"), _reference_ids(reference, [LONG])[0]
    lower = reference.init_kwargs.get("do_lower_case", True)
    folds = _plain_ids(reference, "A RED Fox") == _plain_ids(reference, "a red fox")
    names = list(reference.model_input_names)
    ids = 1 + max(reference.get_vocab().values())
    return [
        Finding(
            "text_length",
            checkpoint.text_length == LENGTH,
            f"The text tower has {checkpoint.text_length} positions; SigLIP 2 has {LENGTH}.",
        ),
        Finding(
            "padding_side",
            reference.padding_side == "right",
            f"The tokenizer pads on the {reference.padding_side}; the last position is pooled, and "
            "training padded on the right.",
        ),
        Finding(
            "pad_id",
            reference.pad_token_id == PAD,
            f"The tokenizer pads with id {reference.pad_token_id}; training padded with id {PAD}.",
        ),
        Finding(
            "end_kept",
            short[-1:] == [EOS] and int(cut[-1]) == EOS,
            f"A short text ends with id {short[-1] if short else None} and one that is cut with id "
            f"{cut[-1]}; both must end with EOS, id {EOS}.",
        ),
        Finding(
            "no_bos",
            not {BOS, reference.bos_token_id} & set(short),
            f"A text becomes ids {short}; training put no BOS (id {BOS}) before it.",
        ),
        Finding(
            "lower_case",
            bool(lower) and folds,
            f"The tokenizer says do_lower_case {lower} and {'folds' if folds else 'keeps'} "
            "capitals; training lower-cased every text.",
        ),
        Finding(
            "no_mask",
            "attention_mask" not in names,
            f"The tokenizer gives {' and '.join(names)}; training saw the pads, without a mask.",
        ),
        Finding(
            "vocabulary",
            ids <= checkpoint.vocabulary,
            f"The tokenizer has {ids} ids and the token table {checkpoint.vocabulary} rows.",
        ),
    ]


def _tokens(reference: Any) -> Finding:
    expected = _reference_ids(reference, PROBE_TEXTS)
    own = Tokenizer(reference.backend_tokenizer).encode(PROBE_TEXTS).ids
    same = int((own == expected).all(axis=-1).sum()) if own.shape == expected.shape else 0
    return Finding(
        "tokens",
        same == len(expected),
        f"{same} of {len(expected)} probe texts have the reference tokenizer's ids.",
    )


def _reference_ids(reference: Any, texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """The ids (n, 64) that transformers makes, padded and cut as the hub's cards say."""
    made = reference(list(texts), padding="max_length", truncation=True, max_length=LENGTH)
    return np.array(made["input_ids"], dtype=np.int64)


def _plain_ids(reference: Any, text: str) -> list[int]:
    """The ids of a text that is neither padded nor cut."""
    return list(reference([text])["input_ids"][0])


# ---- image ---------------------------------------------------------------------------------------


def check_image(checkpoint: Checkpoint, encoder: ImageEncoder | None) -> list[Finding]:
    """Findings on the image processor and, where `encoder` is given, on the image tower."""
    try:
        findings = _image_rules(checkpoint, checkpoint.preprocessing)
        if not all(finding.passed for finding in findings):
            return findings  # with such settings there are no right pixels to compare
        known = encoder.engine.probes().values if encoder is not None else []
        findings.append(_pixels(PixelMaker(checkpoint), known or probe_values(checkpoint)))
        if encoder is not None:
            findings.append(_parity("image_tower", encoder))
    except WRONG as error:
        nulls = ", ".join(checkpoint.null_settings)  # transformers makes None of them, not defaults
        blamed = f"The image processor says null for {nulls}. " if nulls else ""
        return [Finding("processor", False, blamed + _reason(error))]
    return findings


def _image_rules(checkpoint: Checkpoint, settings: dict[str, Any]) -> list[Finding]:
    named = str(settings["image_processor_type"] or "").removesuffix("Fast").removesuffix("Pil")
    expected = "Siglip2ImageProcessor" if checkpoint.naflex else "SiglipImageProcessor"
    missing = [name for name in ("do_resize", "do_rescale", "do_normalize") if not settings[name]]
    extra = [name for name in ("do_center_crop", "do_pad") if settings[name]]
    factor = settings["rescale_factor"]
    return [
        Finding(
            "processor",
            named in ("", expected),
            f"The image processor is {named or 'not named'}; a {checkpoint.model_type} checkpoint "
            f"takes {expected}.",
        ),
        Finding(
            "steps",
            not missing + extra,
            f"The processor leaves out {missing or 'nothing'} and adds {extra or 'nothing'}; "
            "SigLIP 2 resizes, rescales and normalises, no more.",
        ),
        Finding(
            "mean",
            _all_half(settings["image_mean"]),
            f"The processor subtracts {settings['image_mean']}; SigLIP 2 subtracts 0.5.",
        ),
        Finding(
            "std",
            _all_half(settings["image_std"]),
            f"The processor divides by {settings['image_std']}; SigLIP 2 divides by 0.5.",
        ),
        Finding(
            "resample",
            settings["resample"] == BILINEAR,
            f"The processor resamples by filter {settings['resample']}; SigLIP 2 by {BILINEAR}, "
            "bilinear.",
        ),
        Finding(
            "rescale",
            isinstance(factor, float) and abs(factor * 255 - 1) < 1e-9,
            f"The processor multiplies levels by {factor}; SigLIP 2 by 1/255.",
        ),
        _size(checkpoint, settings),
    ]


def _all_half(value: object) -> bool:
    channels = value if isinstance(value, list) else [value] * 3
    return len(channels) == 3 and all(channel == 0.5 for channel in channels)


def _size(checkpoint: Checkpoint, settings: dict[str, Any]) -> Finding:
    if checkpoint.naflex:
        found, expected = settings["patch_size"], checkpoint.patch_size
        sentence = f"The processor cuts patches of {found} pixels and the tower takes {expected}."
        return Finding("size", found == expected, sentence)
    size, side = settings["size"], checkpoint.image_size
    return Finding(
        "size",
        size == {"height": side, "width": side},
        f"The processor resizes to {size} and the tower takes {side} × {side} pixels.",
    )


def _pixels(maker: PixelMaker, expected: Sequence[npt.NDArray[np.float32]]) -> Finding:
    same = sum(
        np.array_equal(maker.table[maker.make(picture).patches], values)
        for picture, values in zip(probe_pictures(), expected, strict=True)
    )
    return Finding(
        "pixels",
        same == len(expected),
        f"{same} of {len(expected)} probe pictures equal the reference processor's to the bit.",
    )


# ---- both ----------------------------------------------------------------------------------------


def _parity(name: str, encoder: TextEncoder | ImageEncoder) -> Finding:
    """Own vectors of the probes, alone and together, beside those of transformers' own forward."""
    probes = encoder.engine.probes()
    items, expected = probes.items, np.tile(probes.vectors, (2, 1))
    alone = [encoder.embed(items[row : row + 1]) for row in range(len(items))]
    own = np.concatenate([*alone, encoder.embed(items)])
    cosine = float((own * expected).sum(axis=-1).min())
    apart = float(np.abs(own - expected).max())
    exact = encoder.precision == "float32"
    passed = cosine >= 0.99999 and apart <= 1e-4 if exact else cosine >= LEAST[encoder.precision]
    return Finding(
        name,
        passed,
        f"Against transformers' own forward, {encoder.precision}: least cosine {cosine:.7f}, "
        f"largest difference {apart:.1e}.",
    )
