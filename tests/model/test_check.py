import contextlib
import json
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
    """A folder with the hub's settings, of either type, both towers included."""
    findings = check(Checkpoint.open(written(tmp_path, name)))
    assert [finding.name for finding in findings] == [
        *TEXT_NAMES,
        "text_tower",
        *IMAGE_NAMES,
        "image_tower",
    ]
    assert failed(findings) == set()


def test_without_an_encoder_only_the_files_are_looked_at(tmp_path: Path) -> None:
    """The tokenizer and the processor can be checked before any weight is loaded."""
    checkpoint = Checkpoint.open(written(tmp_path))
    assert [finding.name for finding in check_text(checkpoint, None)] == TEXT_NAMES
    assert [finding.name for finding in check_image(checkpoint, None)] == IMAGE_NAMES


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_encoder_is_checked_in_its_own_precision(tmp_path: Path, precision: str) -> None:
    """The finding says in which precision the towers were compared."""
    checkpoint = Checkpoint.open(written(tmp_path))
    text = check_text(checkpoint, TextEncoder.load(checkpoint, precision=precision))
    image = check_image(checkpoint, ImageEncoder.load(checkpoint, precision=precision))
    assert failed(text + image) == set()
    assert precision in sentence(text, "text_tower")
    assert precision in sentence(image, "image_tower")


def test_every_sentence_is_one_line(tmp_path: Path) -> None:
    """Findings are printed line by line, whether they pass or fail."""
    folder = written(tmp_path)
    edit_json(folder / "tokenizer_config.json", padding_side="left", do_lower_case=False)
    edit_json(folder / "preprocessor_config.json", image_mean=[0.4, 0.5, 0.5], do_pad=True)
    for finding in check(Checkpoint.open(folder)):
        assert "\n" not in finding.sentence
        assert finding.sentence.endswith(".")


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


def test_pad_id_1_is_found(tmp_path: Path) -> None:
    """SigLIP 1 padded with 1; here the vocabulary has pad and EOS the other way round."""
    maker = CheckpointMaker.named("tiny-naflex")
    maker.specials = ("<eos>", "<pad>", "<bos>", "<unk>", "<mask>")
    findings = check_text(Checkpoint.open(maker.write(tmp_path / "swapped")), None)
    assert failed(findings) == {"pad_id", "end_kept", "tokens"}
    assert "pads with id 1" in sentence(findings, "pad_id")


def test_a_missing_pad_token_is_found(tmp_path: Path) -> None:
    """A vocabulary without <pad>: the library adds one at its end, and pads with that."""
    maker = CheckpointMaker.named("tiny-naflex")
    maker.specials = ("<nothing>", "<eos>", "<bos>", "<unk>", "<mask>")
    folder = maker.write(tmp_path / "padless")
    assert "pad_id" in text_failures(folder)


def test_a_missing_end_is_found(tmp_path: Path) -> None:
    """A tokenizer that appends no EOS."""
    maker = CheckpointMaker.named("tiny-naflex")
    maker.template = "$A"
    maker.tokenizer_config["add_eos_token"] = False
    assert "end_kept" in text_failures(maker.write(tmp_path / "endless"))


def test_a_bos_is_found(tmp_path: Path) -> None:
    """A tokenizer that puts a token before every text, as Gemma's own does."""
    maker = CheckpointMaker.named("tiny-naflex")
    maker.template = "<bos> $A <eos>"
    assert text_failures(maker.write(tmp_path / "begun")) == {"no_bos"}


def test_a_vocabulary_larger_than_the_table_is_found(tmp_path: Path) -> None:
    """Ids beyond the last row would end in an index error, or in another token's row."""
    findings = check_text(Checkpoint.open(written(tmp_path, vocabulary=300)), None)
    assert failed(findings) == {"vocabulary"}
    assert "300 rows" in sentence(findings, "vocabulary")


def test_another_text_length_is_found(tmp_path: Path) -> None:
    """A tower of other than 64 positions pools another one."""
    folder = written(tmp_path)
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
    """The check reports; it does not raise."""
    folder = written(tmp_path)
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": 3}}')
    assert text_failures(folder) == {"tokenizer"}


@pytest.mark.parametrize("name", ["tiny-naflex", "tiny-fixed"])
@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("mean", {"image_mean": [0.48, 0.46, 0.41]}), ("mean", {"image_mean": 0.0}),
        ("std", {"image_std": [0.27, 0.26, 0.28]}), ("std", {"image_std": [0.5, 0.5]}),
        ("resample", {"resample": 3}), ("rescale", {"rescale_factor": 1 / 256}),
        ("steps", {"do_resize": False}), ("steps", {"do_rescale": False}),
        ("steps", {"do_normalize": False}), ("steps", {"do_center_crop": True}),
        ("steps", {"do_pad": True}), ("processor", {"image_processor_type": "CLIPImageProcessor"}),
    ],
)  # fmt: skip
def test_a_processor_that_does_otherwise_is_found(
    tmp_path: Path, name: str, rule: str, change: dict[str, Any]
) -> None:
    """Each setting that would change pixels, in both types."""
    folder = written(tmp_path, name)
    edit_json(folder / "preprocessor_config.json", **change)
    assert failed(check_image(Checkpoint.open(folder), None)) == {rule}


@pytest.mark.parametrize(
    "size", [{"height": 32, "width": 32}, {"shortest_edge": 24}, {"height": 24, "width": 12}, 24]
)
def test_a_size_other_than_the_towers_is_found(tmp_path: Path, size: object) -> None:
    """A fixed resolution squashes to the square that the tower takes."""
    folder = written(tmp_path, "tiny-fixed")
    edit_json(folder / "preprocessor_config.json", size=size)
    assert failed(check_image(Checkpoint.open(folder), None)) == {"size"}


def test_a_resample_left_out_of_a_fixed_processor_is_found(tmp_path: Path) -> None:
    """SigLIP's class resizes by a bicubic filter unless told otherwise."""
    folder = written(tmp_path, "tiny-fixed")
    edit_json(folder / "preprocessor_config.json", resample=None)
    assert failed(check_image(Checkpoint.open(folder), None)) == {"resample"}


def test_a_patch_size_other_than_the_towers_is_found(tmp_path: Path) -> None:
    """The library's own default of 16 does not fit a tower of 4-pixel patches."""
    folder = written(tmp_path)
    edit_json(folder / "preprocessor_config.json", patch_size=None)
    findings = check_image(Checkpoint.open(folder), None)
    assert failed(findings) == {"size"}
    assert "16 pixels" in sentence(findings, "size")


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
    """The command shows what is wrong with one tower and goes on to the other."""
    folder = written(tmp_path)
    weights = load_file(folder / "model.safetensors")
    prefix = "text_model" if tower == "text" else "vision_model"
    weights.pop(f"{prefix}.encoder.layers.0.layer_norm1.weight")
    write_weights(folder / "model.safetensors", weights)
    findings = check(Checkpoint.open(folder))
    assert failed(findings) == {f"{tower}_tower"}
    assert "layer_norm1.weight" in sentence(findings, f"{tower}_tower")


def nulled(file: Path, name: str) -> None:
    """Let a file say null for a name."""
    write_json(file, {**json.loads(file.read_text()), name: None})


@pytest.mark.parametrize("name", ["image_mean", "image_std", "rescale_factor", "do_resize"])
def test_null_in_the_processors_file_is_a_finding(tmp_path: Path, name: str) -> None:
    """transformers takes it for a value, and raises whatever it likes."""
    folder = written(tmp_path)
    nulled(folder / "preprocessor_config.json", name)
    findings = check_image(Checkpoint.open(folder), None)
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
