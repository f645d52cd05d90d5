import json
import math
import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Siglip2TextConfig,
    Siglip2VisionConfig,
    SiglipTextConfig,
    SiglipVisionConfig,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

from litapi.checkpoint import (
    DEMO,
    DEMO_NAME,
    PROCESSOR_DEFAULTS,
    SHARED_PROCESSOR_DEFAULTS,
    TEXT_DEFAULTS,
    VISION_DEFAULTS,
    Checkpoint,
    CheckpointError,
    fetch,
)
from tests.support.checkpoint import (
    CheckpointMaker,
    edit_json,
    write_header,
    write_json,
    write_weights,
)
from tests.support.command import python
from tests.support.stand_in import stand_in

LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096}
SO400M = {"hidden_size": 1152, "num_hidden_layers": 27, "intermediate_size": 4304}
GIANT = {"hidden_size": 1536, "num_hidden_layers": 40, "intermediate_size": 6144}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def naflex(tmp_path: Path) -> Path:
    return CheckpointMaker.named("tiny-naflex").write(tmp_path / "naflex")


@pytest.fixture
def fixed(tmp_path: Path) -> Path:
    return CheckpointMaker.named("tiny-fixed").write(tmp_path / "fixed")


def refusal(folder: Path) -> str:
    """What opening `folder` is refused with; always one line."""
    with pytest.raises(CheckpointError, match=r"\A.+\Z") as caught:
        Checkpoint.open(folder)
    return str(caught.value)


def full_model(seed: int = 0) -> Any:
    return replace(CheckpointMaker.named("tiny-naflex"), seed=seed).full_model()


def store(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    write_weights(folder / "model.safetensors", weights)


def lack_a_shard(folder: Path) -> None:
    split_weights(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def lack_an_image_processor(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()
    write_json(folder / "processor_config.json", {"processor_class": "Siglip2Processor"})


def lack_a_tower(folder: Path) -> None:
    weights = full_model().state_dict()
    store(folder, {name: one for name, one in weights.items() if "vision" not in name})


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def written(name: str, data: bytes) -> Callable[[Path], int]:
    return lambda folder: (folder / name).write_bytes(data)


def with_patches(many: object) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "preprocessor_config.json", max_num_patches=many)


def with_config(section: str, **changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        write_json(folder / "config.json", config | {section: config[section] | changes})

    return edit


FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
LFS = b"version https://git-lfs.github.com/spec/v1\n"
LYING = struct.pack("<Q", 1 << 60) + b"{}"
HEADERS = (struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 9) + b'{"a": {}}')
SCALES = {"logit_scale": torch.zeros(3)}
NO_WEIGHTS = "not a readable safetensors file"
# what is done to a whole folder, and a word of the refusal
SPOILT: list[tuple[Callable[[Path], object], str]] = [
    *((without(name), f"has no {name}") for name in (*FILES, "preprocessor_config.json")),
    *((written("config.json", d), "config.json") for d in (b"", b"{", b"[1]", "\ufeff?".encode())),
    *((written("model.safetensors", d), NO_WEIGHTS) for d in (b"", b"\x10", LYING, *HEADERS, LFS)),
    *((with_patches(many), "max_num_patches") for many in (0, -1, "many", 2.5)),
    (lambda f: store(f, full_model().double().state_dict()), "logit_scale is stored as F64"),
    (lambda f: store(f, full_model().state_dict() | SCALES), "logit_scale"),
    (lack_a_shard, "model-00002-of-00002.safetensors"),
    (lack_a_tower, "lack vision_model"),
    (lack_an_image_processor, "image_processor"),
    (lambda f: edit_json(f / "config.json", model_type="clip"), "type clip"),
    (with_config("text_config", vocab_size=401), "token_embedding"),
    (with_config("text_config", max_position_embeddings=32), "position_embedding"),
    (with_config("text_config", projection_size=48), "dimensions"),
    (with_config("vision_config", num_patches=25), "position_embedding"),
    (with_config("vision_config", hidden_size=48), "dimensions"),
    (with_config("vision_config", vision_use_head=False), "pooling head"),
    (with_config("vision_config", patch_size=[4, 8]), "patch_size"),
]


@pytest.mark.parametrize(("spoil", "named"), SPOILT)
def test_a_folder_that_cannot_be_served_is_refused_by_what_is_wrong(
    naflex: Path, spoil: Callable[[Path], object], named: str
) -> None:
    """In one line, before any worker would load gigabytes."""
    spoil(naflex)
    assert named in refusal(naflex)


TOKENIZERS: list[tuple[str | None, str | None, bool]] = [
    ("SiglipTokenizer", None, False),
    *((name, None, True) for name in ("GemmaTokenizer", "GemmaTokenizerFast", "Siglip2Tokenizer")),
    (None, "BPE", True),
    (None, "Unigram", False),
]


@pytest.mark.parametrize(("named", "model", "accepted"), TOKENIZERS)
def test_siglip_1_is_told_by_its_tokenizer_and_refused(
    fixed: Path, tmp_path: Path, named: str | None, model: str | None, accepted: bool
) -> None:
    """By its class, else its model; Gemma's 256,000 tokens are SigLIP 2 whatever they say."""
    true = write_true_size(tmp_path / "true", "siglip", {}, {})
    for folder in (fixed, true):
        edit_json(folder / "tokenizer_config.json", tokenizer_class=named)
        if model:
            edit_json(folder / "tokenizer.json", model={"type": model})
    assert Checkpoint.open(true).vocabulary == 256_000
    if accepted:
        assert Checkpoint.open(fixed).model_type == "siglip"
    else:
        assert "SigLIP 1" in refusal(fixed)


def write_true_size(
    folder: Path, model_type: str, text: dict[str, Any], vision: dict[str, Any], image: int = 224
) -> Path:
    """A folder whose config and weights header have a true size, and whose config is sparse."""
    folder.mkdir()
    width, dim = (tower.get("hidden_size", 768) for tower in (text, vision))
    positions = 256 if model_type == "siglip2" else (image // vision.get("patch_size", 16)) ** 2
    text = {"vocab_size": 256_000, "projection_size": dim, **text}
    shapes = {
        "logit_scale": (1,),
        "logit_bias": (1,),
        "text_model.embeddings.token_embedding.weight": (256_000, width),
        "text_model.embeddings.position_embedding.weight": (64, width),
        "text_model.head.weight": (dim, width),
        "vision_model.embeddings.position_embedding.weight": (positions, dim),
    }
    config = {"model_type": model_type, "text_config": text, "vision_config": vision}
    write_header(folder / "model.safetensors", shapes, "F32", struct.pack("<f", 1.0))
    write_json(folder / "config.json", config)
    write_json(folder / "tokenizer.json", {})
    write_json(folder / "tokenizer_config.json", {})
    write_json(folder / "preprocessor_config.json", {"resample": 2})
    return folder


def test_a_checkpoint_tells_what_the_front_must_know(naflex: Path, fixed: Path) -> None:
    """Geometry, vocabulary and text length; a fixed resolution counts what its square holds."""
    checkpoint = Checkpoint.open(naflex)
    assert (checkpoint.model_type, checkpoint.naflex) == ("siglip2", True)
    assert (checkpoint.dim, checkpoint.vocabulary, checkpoint.text_length) == (32, 400, 64)
    assert (checkpoint.patch_size, checkpoint.max_num_patches, checkpoint.image_size) == (4, 16, 16)
    square = Checkpoint.open(fixed)
    assert (square.naflex, square.image_size, square.max_num_patches) == (False, 24, 36)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_scalars_are_read_in_every_stored_precision(naflex: Path, dtype: torch.dtype) -> None:
    """Those that sigmoid(scale · cosine + bias) takes: the scale after exp, the bias as stored."""
    store(naflex, full_model().to(dtype).state_dict())
    checkpoint = Checkpoint.open(naflex)
    assert (checkpoint.logit_scale, checkpoint.logit_bias) == pytest.approx((math.exp(2.0), -3.5))


def test_a_sharded_checkpoint_says_the_same_as_the_whole_file(naflex: Path, tmp_path: Path) -> None:
    """Weights in several files are found through their index."""
    whole = Checkpoint.open(naflex)
    split_weights(naflex)
    sharded = Checkpoint.open(naflex)
    assert (sharded.logit_scale, sharded.dim) == (whole.logit_scale, whole.dim)
    assert sharded.weights_digest != whole.weights_digest


def split_weights(folder: Path) -> None:
    """Replace model.safetensors by two shards and their index."""
    weights = full_model().state_dict()
    index: dict[str, str] = {}
    for number, kind in enumerate(("text", "vision"), 1):
        name = f"model-0000{number}-of-00002.safetensors"
        shard = {key: one for key, one in weights.items() if ("text" in key) == (kind == "text")}
        write_weights(folder / name, shard)
        index |= dict.fromkeys(shard, name)
    write_json(folder / "model.safetensors.index.json", {"weight_map": index})
    (folder / "model.safetensors").unlink()


def test_the_defaults_filled_in_are_those_of_transformers() -> None:
    """What the hub's configs leave out is what the installed library would put in."""
    for config in (Siglip2TextConfig(), SiglipTextConfig()):
        assert {name: getattr(config, name) for name in TEXT_DEFAULTS} == TEXT_DEFAULTS
    both = Siglip2VisionConfig(), SiglipVisionConfig()
    for name, value in VISION_DEFAULTS.items():
        assert {getattr(config, name) for config in both if hasattr(config, name)} == {value}


@pytest.mark.parametrize(
    ("model_type", "processor"),
    [("siglip", SiglipImageProcessorPil()), ("siglip2", Siglip2ImageProcessorPil())],
)
def test_the_processor_defaults_are_those_of_transformers(model_type: str, processor: Any) -> None:
    """The defaults of the image processors, SigLIP's bicubic filter among them."""
    ours = SHARED_PROCESSOR_DEFAULTS | PROCESSOR_DEFAULTS[model_type]
    for name in set(ours) - {"image_processor_type", "size"}:
        value = getattr(processor, name, None)
        assert (list(value) if isinstance(value, tuple) else value) == ours[name]


@pytest.mark.parametrize(
    ("size", "gflop"),
    [
        (("siglip2", {}, {}), (11.0, 46.8)),
        (("siglip", {}, {}), (11.0, 35.4)),
        (("siglip", LARGE, LARGE | {"image_size": 256}, 256), (39.1, 162.6)),
        (("siglip", SO400M, SO400M | {"patch_size": 14, "image_size": 384}, 384), (53.1, 670)),
        (("siglip2", SO400M, SO400M), (53.1, 220.5)),
        (("siglip", SO400M, GIANT | {"image_size": 256}, 256), (53.1, 599)),
    ],
)
def test_the_work_of_an_item_is_that_of_the_published_sizes(
    tmp_path: Path, size: tuple[Any, ...], gflop: tuple[float, float]
) -> None:
    """GFLOP of a text and an image from sparse configs of the true sizes, within 1 %."""
    checkpoint = Checkpoint.open(write_true_size(tmp_path / "true", *size))
    assert (checkpoint.text_gflop, checkpoint.image_gflop) == pytest.approx(gflop, rel=0.01)
    assert checkpoint.dim == size[2].get("hidden_size", 768)


def test_each_digest_follows_its_own_files_and_no_others(naflex: Path) -> None:
    """A changed tokenizer or processor changes one of three; a default spelt out changes none."""

    def digests() -> tuple[str, str, str]:
        found = Checkpoint.open(naflex)
        return found.weights_digest, found.tokenizer_digest, found.preprocessing_digest

    processor, (weights, tokenizer, pixels) = naflex / "preprocessor_config.json", digests()
    spelt_out = {"do_rescale": True, "processor_class": "Siglip2Processor"}
    edit_json(processor, image_processor_type="Siglip2ImageProcessorFast", **spelt_out)
    assert digests() == (weights, tokenizer, pixels)
    edit_json(processor, max_num_patches=25)
    assert digests()[:2] == (weights, tokenizer)
    assert (other := digests()[2]) != pixels
    edit_json(naflex / "tokenizer_config.json", padding_side="left")
    assert digests()[1] != tokenizer
    assert digests()[::2] == (weights, other)


def reword(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text().replace(old, new))


SPACED: dict[str, Callable[[Path], object]] = {
    "model.safetensors": lambda file: write_weights(file, full_model(seed=7).state_dict()),
    "config.json": lambda file: reword(file, '_heads": 2', '_heads": 1'),
    "tokenizer.json": lambda file: reword(file, "fox", "fax"),
    "tokenizer_config.json": lambda file: edit_json(file, do_lower_case=False),
    "added_tokens.json": lambda file: file.write_text('{"<new>": 399}'),
    "special_tokens_map.json": lambda file: file.write_text('{"eos_token": "<bos>"}'),
    "preprocessor_config.json": lambda file: edit_json(file, resample=3),
}


@pytest.mark.parametrize("name", SPACED)
def test_what_another_file_computes_is_of_another_space(naflex: Path, name: str) -> None:
    """Weights, config, tokenizer and preprocessing, one file at a time."""
    before = Checkpoint.open(naflex).space
    SPACED[name](naflex / name)
    assert Checkpoint.open(naflex).space != before


def test_a_copy_asked_for_other_patches_is_of_the_same_space(naflex: Path, tmp_path: Path) -> None:
    """Where it lies and what it is called says nothing, and each request may ask for patches."""
    copy = shutil.copytree(naflex, tmp_path / "copy")
    (copy / "README.md").write_text("A copy.")
    edit_json(copy / "preprocessor_config.json", max_num_patches=25)
    spaces = {Checkpoint.open(naflex).space, Checkpoint.open(copy, "a/name", "main").space}
    assert [len(space) for space in spaces] == [16]


def into_hub_cache(folder: Path, home: Path) -> Path:
    """Move a checkpoint into a hub cache, laid out as the hub's client does; gives its snapshot."""
    repository = home / "hub" / "models--google--tiny"
    snapshot, blobs = repository / "snapshots" / COMMIT, repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for number, file in enumerate(sorted(folder.iterdir())):
        blob = blobs / ("ab" * 32 if file.suffix == ".safetensors" else f"{number:040x}")
        shutil.move(file, blob)
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


def test_a_snapshot_in_the_hub_cache_says_what_it_is(naflex: Path, tmp_path: Path) -> None:
    """Model, commit and digest: gigabytes that the hub has named by it are not read again."""
    checkpoint = Checkpoint.open(into_hub_cache(naflex, tmp_path))
    said = checkpoint.name, checkpoint.revision, checkpoint.weights_digest
    assert said == ("google/tiny", COMMIT, "ab" * 32)


def test_a_folder_is_named_after_itself_unless_told_otherwise(naflex: Path) -> None:
    """A plain folder's name and the start of its weights digest; the start-up line names a demo."""
    own, told = Checkpoint.open(naflex), Checkpoint.open(naflex, name="mine", revision="v2")
    assert (own.name, own.revision) == ("naflex", own.weights_digest[:12])
    assert (told.name, told.revision) == ("mine", "v2")
    demo = Checkpoint.open(DEMO)
    assert (demo.name, demo.is_demo, own.is_demo) == (DEMO_NAME, True, False)


def test_a_processor_saved_inside_processor_config_is_found(naflex: Path) -> None:
    """transformers 5 may save the image processor inside processor_config.json."""
    before = Checkpoint.open(naflex).preprocessing_digest
    stored = json.loads((naflex / "preprocessor_config.json").read_text())
    (naflex / "preprocessor_config.json").unlink()
    write_json(naflex / "processor_config.json", {"image_processor": stored})
    assert Checkpoint.open(naflex).preprocessing_digest == before


def test_a_weights_file_cut_before_the_scalars_is_refused(tmp_path: Path) -> None:
    """A download that stopped is noticed where the scalars should be."""
    folder = write_true_size(tmp_path / "cut", "siglip2", {}, {})
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-2])
    assert "ends before" in refusal(folder)


def test_nothing_means_the_demo_and_a_folder_itself(naflex: Path) -> None:
    """Nothing is copied or downloaded."""
    assert fetch("", None) == DEMO
    assert fetch(str(naflex), None) == naflex


@pytest.mark.parametrize(
    ("model", "named"),
    [
        *((path, "no folder") for path in ("/no/such/folder", "./missing", "~/missing", "a/b/c")),
        ("not a name!", "neither a folder nor a name"),
    ],
)
def test_what_can_be_no_name_is_not_asked_of_the_hub(model: str, named: str) -> None:
    """A misspelt folder is called a folder, not an unknown model."""
    with pytest.raises(CheckpointError, match=named):
        fetch(model, None)


FETCHED = """
import sys
from litapi.checkpoint import fetch, CheckpointError
try: print(fetch(sys.argv[1], sys.argv[2] or None))
except CheckpointError as error: print(error)
"""


def fetched(model: str, revision: str = "", **environment: str) -> str:
    """What `fetch` gives or refuses, in a process of its own: the hub reads its settings once."""
    return python(FETCHED, model, revision, **environment).stdout.strip()


def test_offline_a_model_is_one_of_the_local_hub_cache(naflex: Path, tmp_path: Path) -> None:
    """What was downloaded once is served without the network; else there is one sentence."""
    snapshot, offline = into_hub_cache(naflex, tmp_path), {"HF_HUB_OFFLINE": "1"}
    assert fetched("google/tiny", HF_HOME=str(tmp_path), **offline) == str(snapshot)
    never = fetched("google/never", HF_HOME=str(tmp_path), **offline)
    assert never == "google/never is not in the local hub cache and the hub cannot be reached."


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (404, "RepoNotFound", "The hub has no model google/tiny, or it is private."),
        (404, "RevisionNotFound", "google/tiny has no revision v9."),
        (403, "GatedRepo", "google/tiny is gated: accept its terms on the hub and set HF_TOKEN."),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    tmp_path: Path, status: int, code: str, sentence: str
) -> None:
    """Unknown, gated, and no such revision are told apart."""
    with stand_in(lambda *_: (status, {"X-Error-Code": code}, b"")) as address:
        answer = fetched("google/tiny", "v9", HF_HOME=str(tmp_path), HF_ENDPOINT=address)
    assert answer == sentence


def test_files_that_change_after_they_were_read_are_noticed(tmp_path: Path) -> None:
    """A worker that starts later would keep new vectors under the digests of the old weights."""
    folder = shutil.copytree(DEMO, tmp_path / "checkpoint")
    checkpoint = Checkpoint.open(folder)
    checkpoint.require_unchanged()
    weights = folder / "model.safetensors"
    os.utime(weights, ns=(0, weights.stat().st_mtime_ns + 1))
    (folder / "generation_config.json").write_text("{}")
    assert not checkpoint.is_unchanged
    checkpoint.require_unchanged()  # they say the same
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="start it anew"):
        checkpoint.require_unchanged()
    assert not checkpoint.is_like(Checkpoint.open(folder))
