"""Does this checkpoint, on this machine, give the vectors that SigLIP 2 was trained to give?

Every rule here was broken by some folder laid out like the hub's without a word from any library:
the vectors come out, unit length and wrong. So the rules are looked at one by one, on what
transformers makes of the folder's own files, and each gives a finding; the server refuses to
start on one that failed. The last two compare: own tokens and pixels with the reference's, equal
to the bit, and the own way through a tower with transformers' own on a small probe.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from litapi.checkpoint import Checkpoint, CheckpointError
from litapi.model.pixels import PixelMaker, Pixels
from litapi.model.tokens import BOS, EOS, LENGTH, PAD, Tokenizer, load_reference

if TYPE_CHECKING:
    from litapi.model.encoder import ImageEncoder, TextEncoder

log = logging.getLogger("siglit.check")

LONG = "a photo of a red fox, " * 30
PROBE_TEXTS = ("A Photo of a RED fox", "x", LONG, "naïve ΟΔΌΣ 東京 🙂 café")
PROBE_SIZES = ((61, 97), (80, 40))  # width, height: a portrait and a landscape of unlike grids
PROBE_PATCHES = 16  # enough for two unlike grids, and cheap on the largest checkpoint
BILINEAR = 2
# what libraries raise over a file that says null, or a word, where they expect a number
WRONG = (CheckpointError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule looked at: its name, whether it holds, and one public sentence."""

    name: str
    passed: bool
    sentence: str


def check(checkpoint: Checkpoint) -> list[Finding]:
    """All findings on the CPU in float32, loading one tower after the other."""
    return _check_text_alone(checkpoint) + _check_image_alone(checkpoint)


def _check_text_alone(checkpoint: Checkpoint) -> list[Finding]:
    from litapi.model.encoder import TextEncoder

    try:
        return check_text(checkpoint, TextEncoder.load(checkpoint))
    except Exception as error:
        return [Finding("text_tower", False, _reason(error))]


def _check_image_alone(checkpoint: Checkpoint) -> list[Finding]:
    from litapi.model.encoder import ImageEncoder

    try:
        return check_image(checkpoint, ImageEncoder.load(checkpoint))
    except Exception as error:
        return [Finding("image_tower", False, _reason(error))]


def _reason(error: Exception) -> str:
    if isinstance(error, CheckpointError):
        return str(error)
    log.debug("a check failed", exc_info=error)
    return f"A library cannot make anything of this folder's files ({type(error).__name__})."


# ---- text ----------------------------------------------------------------------------------------


def check_text(checkpoint: Checkpoint, encoder: TextEncoder | None) -> list[Finding]:
    """Findings on the tokenizer and, where `encoder` is given, on the text tower."""
    try:
        return _check_text(checkpoint, encoder, load_reference(checkpoint))
    except WRONG as error:
        return [Finding("tokenizer", False, _reason(error))]


def _check_text(
    checkpoint: Checkpoint, encoder: TextEncoder | None, reference: Any
) -> list[Finding]:
    findings = [
        _text_length(checkpoint),
        _padding_side(reference),
        _pad_id(reference),
        _end(reference),
        _no_bos(reference),
        _lower_case(reference),
        _no_mask(reference),
        _vocabulary(checkpoint, reference),
    ]
    # Last, for the tokenizer takes the reference's backend over; loading Gemma's twice is slow.
    expected = _reference_ids(reference, PROBE_TEXTS)
    ids = Tokenizer(reference.backend_tokenizer).encode(PROBE_TEXTS).ids
    findings.append(_tokens(ids, expected))
    if encoder is not None and all(finding.passed for finding in findings):
        own = np.concatenate([encoder.embed(ids[row : row + 1]) for row in range(len(ids))])
        findings.append(_parity("text_tower", own, encoder.stock(ids), encoder.precision))
    return findings


def _text_length(checkpoint: Checkpoint) -> Finding:
    return Finding(
        "text_length",
        checkpoint.text_length == LENGTH,
        f"The text tower has {checkpoint.text_length} positions; SigLIP 2 has {LENGTH}.",
    )


def _padding_side(reference: Any) -> Finding:
    return Finding(
        "padding_side",
        reference.padding_side == "right",
        f"The tokenizer pads on the {reference.padding_side}; the last position is pooled, and "
        "training padded on the right.",
    )


def _pad_id(reference: Any) -> Finding:
    return Finding(
        "pad_id",
        reference.pad_token_id == PAD,
        f"The tokenizer pads with id {reference.pad_token_id}; training padded with id {PAD}.",
    )


def _end(reference: Any) -> Finding:
    short, long = _plain_ids(reference, "x"), _reference_ids(reference, [LONG])[0]
    return Finding(
        "end_kept",
        short[-1:] == [EOS] and int(long[-1]) == EOS,
        f"A short text ends with id {short[-1] if short else None} and one that is cut with id "
        f"{long[-1]}; both must end with EOS, id {EOS}.",
    )


def _no_bos(reference: Any) -> Finding:
    ids = _plain_ids(reference, "x")
    return Finding(
        "no_bos",
        not {BOS, reference.bos_token_id} & set(ids),
        f"A text becomes ids {ids}; training put no BOS (id {BOS}) before it.",
    )


def _lower_case(reference: Any) -> Finding:
    declared = reference.init_kwargs.get("do_lower_case", True)
    folded = _plain_ids(reference, "A RED Fox") == _plain_ids(reference, "a red fox")
    return Finding(
        "lower_case",
        bool(declared) and folded,
        f"The tokenizer says do_lower_case {declared} and {'folds' if folded else 'keeps'} "
        "capitals; training lower-cased every text.",
    )


def _no_mask(reference: Any) -> Finding:
    names = list(reference.model_input_names)
    return Finding(
        "no_mask",
        "attention_mask" not in names,
        f"The tokenizer gives {' and '.join(names)}; training saw the pads, without a mask.",
    )


def _vocabulary(checkpoint: Checkpoint, reference: Any) -> Finding:
    ids = 1 + max(reference.get_vocab().values())
    return Finding(
        "vocabulary",
        ids <= checkpoint.vocabulary,
        f"The tokenizer has {ids} ids and the token table {checkpoint.vocabulary} rows.",
    )


def _tokens(own: npt.NDArray[np.int64], expected: npt.NDArray[np.int64]) -> Finding:
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
        return _check_image(checkpoint, encoder)
    except WRONG as error:
        nulls = ", ".join(checkpoint.null_settings)  # transformers makes None of them, not defaults
        blamed = f"The image processor says null for {nulls}. " if nulls else ""
        return [Finding("processor", False, blamed + _reason(error))]


def _check_image(checkpoint: Checkpoint, encoder: ImageEncoder | None) -> list[Finding]:
    settings = checkpoint.preprocessing
    findings = [
        _processor(checkpoint, settings),
        _steps(settings),
        _mean(settings),
        _std(settings),
        _resample(settings),
        _rescale(settings),
        _size(checkpoint, settings),
    ]
    if not all(finding.passed for finding in findings):
        return findings  # with such settings there are no right pixels to compare
    maker = PixelMaker(checkpoint)
    findings.append(_pixels(checkpoint, maker))
    if encoder is not None:
        findings.append(_image_tower(maker, encoder))
    return findings


def _processor(checkpoint: Checkpoint, settings: dict[str, Any]) -> Finding:
    named = str(settings["image_processor_type"] or "").removesuffix("Fast").removesuffix("Pil")
    expected = "Siglip2ImageProcessor" if checkpoint.naflex else "SiglipImageProcessor"
    return Finding(
        "processor",
        named in ("", expected),
        f"The image processor is {named or 'not named'}; a {checkpoint.model_type} checkpoint "
        f"takes {expected}.",
    )


def _steps(settings: dict[str, Any]) -> Finding:
    missing = [name for name in ("do_resize", "do_rescale", "do_normalize") if not settings[name]]
    extra = [name for name in ("do_center_crop", "do_pad") if settings[name]]
    return Finding(
        "steps",
        not missing + extra,
        f"The processor leaves out {missing or 'nothing'} and adds {extra or 'nothing'}; SigLIP 2 "
        "resizes, rescales and normalises, no more.",
    )


def _mean(settings: dict[str, Any]) -> Finding:
    return Finding(
        "mean",
        _all_half(settings["image_mean"]),
        f"The processor subtracts {settings['image_mean']}; SigLIP 2 subtracts 0.5.",
    )


def _std(settings: dict[str, Any]) -> Finding:
    return Finding(
        "std",
        _all_half(settings["image_std"]),
        f"The processor divides by {settings['image_std']}; SigLIP 2 divides by 0.5.",
    )


def _all_half(value: object) -> bool:
    channels = value if isinstance(value, list) else [value] * 3
    return len(channels) == 3 and all(channel == 0.5 for channel in channels)


def _resample(settings: dict[str, Any]) -> Finding:
    return Finding(
        "resample",
        settings["resample"] == BILINEAR,
        f"The processor resamples by filter {settings['resample']}; SigLIP 2 by {BILINEAR}, "
        "bilinear.",
    )


def _rescale(settings: dict[str, Any]) -> Finding:
    factor = settings["rescale_factor"]
    return Finding(
        "rescale",
        isinstance(factor, float) and abs(factor * 255 - 1) < 1e-9,
        f"The processor multiplies levels by {factor}; SigLIP 2 by 1/255.",
    )


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


def _pixels(checkpoint: Checkpoint, maker: PixelMaker) -> Finding:
    pictures = _probe_pictures()
    processor = load_reference_processor(checkpoint)
    same = sum(
        np.array_equal(maker.table[maker.make(picture).patches], _values(processor, picture))
        for picture in pictures
    )
    return Finding(
        "pixels",
        same == len(pictures),
        f"{same} of {len(pictures)} probe pictures equal the reference processor's to the bit.",
    )


def _values(processor: Any, picture: Image.Image) -> npt.NDArray[np.float32]:
    """transformers' values for a picture, without padding: shaped as `Pixels.patches`."""
    made = processor(images=picture, return_tensors="np")
    values: npt.NDArray[np.float32] = made["pixel_values"][0]
    if "pixel_attention_mask" not in made:
        return values.transpose(1, 2, 0)
    return values[: int(made["pixel_attention_mask"][0].sum())]


def load_reference_processor(checkpoint: Checkpoint) -> Any:
    """transformers' PIL image processor for `checkpoint`, with the settings of its folder.

    Named outright: which one AutoImageProcessor takes depends on whether torchvision is installed.
    """
    if checkpoint.naflex:
        from transformers.models.siglip2 import image_processing_pil_siglip2 as siglip2

        return siglip2.Siglip2ImageProcessorPil.from_pretrained(checkpoint.folder)
    from transformers.models.siglip import image_processing_pil_siglip as siglip

    return siglip.SiglipImageProcessorPil.from_pretrained(checkpoint.folder)


def _image_tower(maker: PixelMaker, encoder: ImageEncoder) -> Finding:
    """Own vectors, one picture at a time and together, against the stock forward of them all."""
    pixels = _probe_pixels(maker)
    stock = encoder.stock(pixels)
    own = np.concatenate([encoder.embed([picture]) for picture in pixels])
    if len(pixels) > 1:
        own, stock = np.concatenate([own, encoder.embed(pixels)]), np.tile(stock, (2, 1))
    return _parity("image_tower", own, stock, encoder.precision)


def _probe_pixels(maker: PixelMaker) -> list[Pixels]:
    """Two small unlike grids for NaFlex; a fixed resolution has no cheap picture, so one."""
    pictures = _probe_pictures() if maker.naflex else _probe_pictures()[:1]
    return [maker.make(picture, PROBE_PATCHES) for picture in pictures]


def _probe_pictures() -> list[Image.Image]:
    noise = np.random.default_rng(2)
    return [
        Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in PROBE_SIZES
    ]


# ---- both ----------------------------------------------------------------------------------------


def _parity(
    name: str, own: npt.NDArray[np.float32], stock: npt.NDArray[np.float32], precision: str
) -> Finding:
    """Rows of unit vectors compared: cosine, and in float32 the largest difference as well."""
    cosine = float((own * stock).sum(axis=-1).min())
    apart = float(np.abs(own - stock).max())
    exact = precision == "float32"
    passed = cosine >= 0.99999 and apart <= 1e-4 if exact else cosine >= 0.999
    return Finding(
        name,
        passed,
        f"Against transformers' own forward in {precision}: least cosine {cosine:.7f}, largest "
        f"difference {apart:.1e}.",
    )
