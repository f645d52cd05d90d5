import contextlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from litapi.checkpoint import Checkpoint, CheckpointError
from litapi.model.check import Finding, check, check_image, check_text
from litapi.model.encoder import ImageEncoder, TextEncoder
from tests.support.checkpoint import CheckpointMaker, edit_json, write_json, write_weights

TEXT_NAMES = [
    "text_length", "padding_side", "pad_id", "end_kept", "no_bos", "lower_case", "no_mask",
    "vocabulary", "tokens",
]  # fmt: skip
IMAGE_NAMES = ["processor", "steps", "mean", "std", "resample", "rescale", "size", "pixels"]


def written(folder: Path, name: str = "tiny-naflex", **changes: Any) -> Path:
    return CheckpointMaker.named(name, **changes).write(folder / name)


def failed(findings: list[Finding]) -> set[str]:
    return {finding.name for finding in findings if not finding.passed}


def sentence(findings: list[Finding], name: str) -> str:
    (found,) = [finding.sentence for finding in findings if finding.name == name]
    return found


@pytest.mark.parametrize("name", ["tiny-naflex", "tiny-fixed"])
def test_a_sound_checkpoint_passes_every_rule(tmp_path: Path, name: str) -> None:
    """A folder with the hub's settings; without an encoder only its files are looked at."""
    checkpoint = Checkpoint.open(written(tmp_path, name))
    assert [finding.name for finding in check_text(checkpoint, None)] == TEXT_NAMES
    assert [finding.name for finding in check_image(checkpoint, None)] == IMAGE_NAMES
    findings = check(checkpoint)
    assert [finding.name for finding in findings] == [
        *TEXT_NAMES,
        "text_tower",
        *IMAGE_NAMES,
        "image_tower",
    ]
    assert failed(findings) == set()
    assert all(re.fullmatch(r"[^\n]+\.", finding.sentence) for finding in findings)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_encoder_is_checked_in_its_own_precision(tmp_path: Path, precision: str) -> None:
    """The finding says in which precision the towers were compared."""
    checkpoint = Checkpoint.open(written(tmp_path))
    text = check_text(checkpoint, TextEncoder.load(checkpoint, precision=precision))
    image = check_image(checkpoint, ImageEncoder.load(checkpoint, precision=precision))
    assert failed(text + image) == set()
    assert precision in sentence(text, "text_tower")
    assert precision in sentence(image, "image_tower")


def text_failures(folder: Path) -> set[str]:
    return failed(check_text(Checkpoint.open(folder), None))


SETTINGS: list[tuple[dict[str, Any], set[str], str]] = [
    ({"padding_side": "left"}, {"padding_side", "tokens"}, "pads on the left"),
    ({"padding_side": None}, {"padding_side", "tokens"}, ""),  # the class pads on the left
    ({"pad_token": "<unk>"}, {"pad_id", "tokens"}, ""),
    ({"do_lower_case": False}, {"lower_case"}, ""),
    ({"model_input_names": ["input_ids", "attention_mask"]}, {"no_mask"}, ""),
    ({"model_input_names": None}, {"no_mask"}, ""),  # the class declares it
]


@pytest.mark.parametrize(("change", "rules", "said"), SETTINGS)
def test_a_tokenizer_that_does_otherwise_is_found(
    tmp_path: Path, change: dict[str, Any], rules: set[str], said: str
) -> None:
    """Each setting that would change ids, said or left to a default."""
    folder = written(tmp_path)
    edit_json(folder / "tokenizer_config.json", **change)
    findings = check_text(Checkpoint.open(folder), None)
    assert failed(findings) == rules
    assert any(said in one.sentence for one in findings if not one.passed)
    assert all(re.fullmatch(r"[^\n]+\.", finding.sentence) for finding in findings)


SPECIALS: list[tuple[dict[str, Any], set[str]]] = [
    # SigLIP 1 padded with 1; here pad and EOS are the other way round
    (
        {"specials": ("<eos>", "<pad>", "<bos>", "<unk>", "<mask>")},
        {"pad_id", "end_kept", "tokens"},
    ),
    # without <pad> the library adds one at the end, and pads with that
    ({"specials": ("<nothing>", "<eos>", "<bos>", "<unk>", "<mask>")}, {"pad_id"}),
    ({"template": "$A"}, {"end_kept"}),
    ({"template": "<bos> $A <eos>"}, {"no_bos"}),
]


@pytest.mark.parametrize(("change", "rules"), SPECIALS)
def test_special_tokens_that_are_other_or_missing_are_found(
    tmp_path: Path, change: dict[str, Any], rules: set[str]
) -> None:
    """Padding by another id, no EOS at the end, a BOS at the beginning."""
    maker = replace(CheckpointMaker.named("tiny-naflex"), **change)
    maker.tokenizer_config["add_eos_token"] = maker.template != "$A"
    assert rules <= text_failures(maker.write(tmp_path / "special"))


def test_a_tower_of_another_shape_than_the_tokenizers_is_found(tmp_path: Path) -> None:
    """Ids beyond the last row would be another token's, and other than 64 positions pool others."""
    findings = check_text(Checkpoint.open(written(tmp_path, vocabulary=300)), None)
    assert failed(findings) == {"vocabulary"}
    assert "300 rows" in sentence(findings, "vocabulary")
    folder = written(tmp_path / "short")
    shorten_positions(folder, 32)
    findings = check_text(Checkpoint.open(folder), None)
    assert failed(findings) == {"text_length"}
    assert "32 positions" in sentence(findings, "text_length")


def shorten_positions(folder: Path, length: int) -> None:
    name = "text_model.embeddings.position_embedding.weight"
    weights = load_file(folder / "model.safetensors")
    weights[name] = weights[name][:length]
    write_weights(folder / "model.safetensors", weights)
    config = CheckpointMaker.named("tiny-naflex").config()
    config["text_config"]["max_position_embeddings"] = length
    write_json(folder / "config.json", config)


def test_a_tokenizer_that_cannot_be_loaded_is_a_finding(tmp_path: Path) -> None:
    """The check reports in one line; it does not raise."""
    folder = written(tmp_path)
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": 3}}')
    (found,) = check_text(Checkpoint.open(folder), None)
    assert (found.name, found.passed) == ("tokenizer", False)
    assert found.sentence == f"The tokenizer in {folder} cannot be loaded."


CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("mean", {"image_mean": [0.48, 0.46, 0.41]}), ("mean", {"image_mean": 0.0}),
    ("std", {"image_std": [0.27, 0.26, 0.28]}), ("std", {"image_std": [0.5, 0.5]}),
    ("resample", {"resample": 3}), ("rescale", {"rescale_factor": 1 / 256}),
    ("steps", {"do_resize": False}), ("steps", {"do_rescale": False}),
    ("steps", {"do_normalize": False}), ("steps", {"do_center_crop": True}),
    ("steps", {"do_pad": True}), ("processor", {"image_processor_type": "CLIPImageProcessor"}),
]  # fmt: skip
SQUARES = ({"height": 32, "width": 32}, {"shortest_edge": 24}, 24, {"height": 24, "width": 12})


@pytest.mark.parametrize(
    ("name", "rule", "change"),
    [
        *((name, *change) for name in ("tiny-naflex", "tiny-fixed") for change in CHANGES),
        *(("tiny-fixed", "size", {"size": size}) for size in SQUARES),
        ("tiny-fixed", "resample", {"resample": None}),  # the class resizes by a bicubic filter
        ("tiny-naflex", "size", {"patch_size": None}),  # the library's own default is 16 pixels
    ],
)
def test_a_processor_that_does_otherwise_is_found(
    tmp_path: Path, name: str, rule: str, change: dict[str, Any]
) -> None:
    """Each setting that would change pixels, a square that is not the tower's, or a default that
    would be the library's."""
    folder = written(tmp_path, name)
    edit_json(folder / "preprocessor_config.json", **change)
    assert failed(check_image(Checkpoint.open(folder), None)) == {rule}


def test_a_wrong_way_through_the_text_tower_is_found(tmp_path: Path) -> None:
    """Pooling another position than the last is seen against the stock forward."""
    checkpoint = Checkpoint.open(written(tmp_path))
    encoder = TextEncoder.load(checkpoint)
    embed = encoder.embed
    encoder.embed = lambda items: embed(np.roll(items, 1, axis=1))  # type: ignore[method-assign]
    findings = check_text(checkpoint, encoder)
    assert failed(findings) == {"text_tower"}
    assert "least cosine" in sentence(findings, "text_tower")


def test_a_wrong_position_table_is_found(tmp_path: Path) -> None:
    """A table resized for another grid is seen against the stock forward."""
    checkpoint = Checkpoint.open(written(tmp_path))
    encoder = ImageEncoder.load(checkpoint)
    tables = encoder.engine.positions  # type: ignore[attr-defined]
    tables.index([(5, 3), (2, 5), (3, 5), (4, 4), (2, 8), (8, 2), (5, 2)], 16)
    tables.rows[1:200] = tables.rows[1:200][::-1].copy() * 3
    assert failed(check_image(checkpoint, encoder)) == {"image_tower"}


@pytest.mark.parametrize("tower", ["text", "image"])
def test_a_tower_that_cannot_be_loaded_is_a_finding(tmp_path: Path, tower: str) -> None:
    """A missing weight would be random. The command names it and goes on to the other tower."""
    folder = written(tmp_path)
    weights = load_file(folder / "model.safetensors")
    prefix = "text_model" if tower == "text" else "vision_model"
    weights.pop(f"{prefix}.encoder.layers.0.layer_norm1.weight")
    write_weights(folder / "model.safetensors", weights)
    findings = check(Checkpoint.open(folder))
    assert failed(findings) == {f"{tower}_tower"}
    lacks = "lacks 1 weights: encoder.layers.0.layer_norm1.weight"
    assert lacks in sentence(findings, f"{tower}_tower")


@pytest.mark.parametrize("name", ["image_mean", "image_std", "rescale_factor", "do_resize"])
def test_null_in_the_processors_file_is_a_finding(tmp_path: Path, name: str) -> None:
    """transformers takes it for a value, and raises whatever it likes."""
    file = written(tmp_path) / "preprocessor_config.json"
    write_json(file, {**json.loads(file.read_text()), name: None})
    findings = check_image(Checkpoint.open(file.parent), None)
    assert failed(findings) == {"processor"}
    assert f"says null for {name}" in sentence(findings, "processor")


@pytest.mark.parametrize("file", ["preprocessor_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("value", [None, "x", -1, [], {}, [None], 1.5])
def test_a_field_of_any_kind_gives_findings(tmp_path: Path, file: str, value: Any) -> None:
    """Every field of both files in turn: a finding, or a checkpoint that is refused by its name."""
    folder = written(tmp_path)
    whole = json.loads((folder / file).read_text())
    for name in whole:
        write_json(folder / file, {**whole, name: value})
        look = check_image if file.startswith("pre") else check_text
        with contextlib.suppress(CheckpointError):
            assert all("\n" not in one.sentence for one in look(Checkpoint.open(folder), None))


@pytest.mark.parametrize("section", ["", "text_config", "vision_config"])
@pytest.mark.parametrize("value", [None, "x", -1, 0, [], {}, 1.5, "1e999"])
def test_a_config_of_the_wrong_kind_is_refused_in_one_line(
    tmp_path: Path, section: str, value: Any
) -> None:
    """Every field in turn; where it changes nothing that is read here, it may be taken."""
    folder = written(tmp_path)
    whole = json.loads((folder / "config.json").read_text())
    fields = whole[section] if section else whole
    for name in fields:
        changed = {**fields, name: value}
        write_json(folder / "config.json", {**whole, section: changed} if section else changed)
        with contextlib.suppress(CheckpointError):
            Checkpoint.open(folder)
