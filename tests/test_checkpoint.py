import json
import math
import os
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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

BASE = {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072}
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
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_true_size(
    folder: Path, model_type: str, text: dict[str, Any], vision: dict[str, Any], image: int = 224
) -> Path:
    """A folder whose config and weights header have a true size, and whose config is sparse."""
    folder.mkdir()
    text = {"vocab_size": 256_000} | text
    text["projection_size"] = vision.get("hidden_size", 768)
    patch = vision.get("patch_size", 16)
    positions = 256 if model_type == "siglip2" else (image // patch) ** 2
    write_json(
        folder / "config.json",
        {"model_type": model_type, "text_config": text, "vision_config": vision},
    )
    widths = (text.get("hidden_size", 768), vision.get("hidden_size", 768))
    write_header(
        folder / "model.safetensors",
        {
            "logit_scale": (1,),
            "logit_bias": (1,),
            "text_model.embeddings.token_embedding.weight": (256_000, widths[0]),
            "text_model.embeddings.position_embedding.weight": (64, widths[0]),
            "text_model.head.weight": (widths[1], widths[0]),
            "vision_model.embeddings.position_embedding.weight": (positions, widths[1]),
        },
        "F32",
        struct.pack("<f", 1.0),
    )
    write_json(folder / "tokenizer.json", {})
    write_json(folder / "tokenizer_config.json", {})
    write_json(folder / "preprocessor_config.json", {"resample": 2})
    return folder


def test_a_naflex_checkpoint_tells_what_the_front_must_know(naflex: Path) -> None:
    """Dimension, geometry, vocabulary and text length come from config and processor."""
    checkpoint = Checkpoint.open(naflex)
    assert checkpoint.model_type == "siglip2"
    assert checkpoint.naflex
    assert (checkpoint.dim, checkpoint.vocabulary, checkpoint.text_length) == (32, 400, 64)
    assert (checkpoint.patch_size, checkpoint.max_num_patches, checkpoint.image_size) == (4, 16, 16)


def test_a_fixed_checkpoint_counts_the_patches_of_its_square(fixed: Path) -> None:
    """A fixed resolution has as many patches as its square holds."""
    checkpoint = Checkpoint.open(fixed)
    assert not checkpoint.naflex
    assert (checkpoint.image_size, checkpoint.max_num_patches) == (24, 36)


def test_logit_scale_is_given_after_exp_and_the_bias_as_stored(naflex: Path) -> None:
    """The scalars are the ones that sigmoid(scale · cosine + bias) takes."""
    checkpoint = Checkpoint.open(naflex)
    assert checkpoint.logit_scale == pytest.approx(math.exp(2.0))
    assert checkpoint.logit_bias == -3.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_scalars_are_read_in_every_stored_precision(naflex: Path, dtype: torch.dtype) -> None:
    """A checkpoint saved in half precision has the same scale and bias."""
    maker = CheckpointMaker.named("tiny-naflex")
    write_weights(naflex / "model.safetensors", maker.full_model().to(dtype).state_dict())
    checkpoint = Checkpoint.open(naflex)
    assert checkpoint.logit_scale == pytest.approx(math.exp(2.0))
    assert checkpoint.logit_bias == -3.5


def test_a_scalar_of_an_unknown_precision_is_refused(naflex: Path) -> None:
    """What cannot be read is named, with how it is stored."""
    maker = CheckpointMaker.named("tiny-naflex")
    write_weights(naflex / "model.safetensors", maker.full_model().double().state_dict())
    assert "logit_scale is stored as F64" in refusal(naflex)


def test_a_logit_scale_of_many_numbers_is_refused(naflex: Path) -> None:
    """A scale for each dimension belongs to some other model."""
    weights = CheckpointMaker.named("tiny-naflex").full_model().state_dict()
    weights["logit_scale"] = torch.zeros(3)
    write_weights(naflex / "model.safetensors", weights)
    assert "logit_scale" in refusal(naflex)


def test_a_sharded_checkpoint_says_the_same_as_the_whole_file(naflex: Path, tmp_path: Path) -> None:
    """Weights in several files are found through their index."""
    whole = Checkpoint.open(naflex)
    split_weights(naflex)
    sharded = Checkpoint.open(naflex)
    assert (sharded.logit_scale, sharded.dim) == (whole.logit_scale, whole.dim)
    assert sharded.weights_digest != whole.weights_digest


def split_weights(folder: Path) -> None:
    """Replace model.safetensors by two shards and their index."""
    weights = CheckpointMaker.named("tiny-naflex").full_model().state_dict()
    index: dict[str, str] = {}
    for number, kind in enumerate(("text", "vision"), 1):
        name = f"model-0000{number}-of-00002.safetensors"
        shard = {
            key: value for key, value in weights.items() if ("text" in key) == (kind == "text")
        }
        write_weights(folder / name, shard)
        index |= dict.fromkeys(shard, name)
    write_json(folder / "model.safetensors.index.json", {"weight_map": index})
    (folder / "model.safetensors").unlink()


def test_a_missing_shard_is_named(naflex: Path) -> None:
    """An index that points at a file that is not there is refused with that file's name."""
    split_weights(naflex)
    (naflex / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors" in refusal(naflex)


def test_the_defaults_filled_in_are_those_of_transformers() -> None:
    """What the hub's configs leave out is what the installed library would put in."""
    for config in (Siglip2TextConfig(), SiglipTextConfig()):
        assert {name: getattr(config, name) for name in TEXT_DEFAULTS} == TEXT_DEFAULTS
    naflex, fixed = Siglip2VisionConfig(), SiglipVisionConfig()
    for name, value in VISION_DEFAULTS.items():
        found = {getattr(config, name) for config in (naflex, fixed) if hasattr(config, name)}
        assert found == {value}


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
    ("model_type", "text", "vision", "image", "text_gflop", "image_gflop"),
    [
        ("siglip2", {}, {}, 0, 11.0, 46.8),
        ("siglip", {}, {}, 224, 11.0, 35.4),
        ("siglip", LARGE, LARGE | {"image_size": 256}, 256, 39.1, 162.6),
        ("siglip", SO400M, SO400M | {"patch_size": 14, "image_size": 384}, 384, 53.1, 670),
        ("siglip2", SO400M, SO400M, 0, 53.1, 220.5),
        ("siglip", SO400M, GIANT | {"image_size": 256}, 256, 53.1, 599),
    ],
)
def test_the_work_of_an_item_is_that_of_the_published_sizes(
    tmp_path: Path,
    model_type: str,
    text: dict[str, Any],
    vision: dict[str, Any],
    image: int,
    text_gflop: float,
    image_gflop: float,
) -> None:
    """GFLOP of a text and an image from sparse configs of the true sizes, within 1 %."""
    folder = write_true_size(tmp_path / "true", model_type, text, vision, image)
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.text_gflop == pytest.approx(text_gflop, rel=0.01)
    assert checkpoint.image_gflop == pytest.approx(image_gflop, rel=0.01)
    assert checkpoint.dim == vision.get("hidden_size", 768)


def test_a_nearly_empty_config_is_the_base_model(tmp_path: Path) -> None:
    """The base NaFlex config relies on the defaults for every size."""
    folder = write_true_size(tmp_path / "base", "siglip2", {}, {})
    checkpoint = Checkpoint.open(folder)
    assert (checkpoint.dim, checkpoint.patch_size, checkpoint.max_num_patches) == (768, 16, 256)


def test_a_copy_of_a_folder_has_the_same_digests(naflex: Path, tmp_path: Path) -> None:
    """Digests depend on content, never on where it lies."""
    shutil.copytree(naflex, tmp_path / "copy")
    first, second = Checkpoint.open(naflex), Checkpoint.open(tmp_path / "copy")
    assert digests(first) == digests(second)
    assert first.revision == second.revision


def digests(checkpoint: Checkpoint) -> tuple[str, str, str]:
    return (
        checkpoint.weights_digest,
        checkpoint.tokenizer_digest,
        checkpoint.preprocessing_digest,
    )


def test_each_digest_follows_its_own_files_and_no_others(naflex: Path) -> None:
    """A changed tokenizer, processor or weight changes one digest of the three."""
    before = digests(Checkpoint.open(naflex))
    edit_json(naflex / "preprocessor_config.json", max_num_patches=25)
    after = digests(Checkpoint.open(naflex))
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False]
    edit_json(naflex / "tokenizer_config.json", padding_side="left")
    last = digests(Checkpoint.open(naflex))
    assert [a == b for a, b in zip(after, last, strict=True)] == [True, False, True]


def test_settings_that_change_no_pixel_leave_the_preprocessing_digest(naflex: Path) -> None:
    """Spelling out a default, or naming the processor's class, invalidates no cached vector."""
    before = Checkpoint.open(naflex).preprocessing_digest
    edit_json(
        naflex / "preprocessor_config.json",
        image_processor_type="Siglip2ImageProcessorFast",
        do_rescale=True,
        processor_class="Siglip2Processor",
    )
    assert Checkpoint.open(naflex).preprocessing_digest == before


def test_a_rewritten_weights_file_is_hashed_again(naflex: Path) -> None:
    """The digest is kept for a file that did not change, not for its name."""
    before = Checkpoint.open(naflex).weights_digest
    maker = CheckpointMaker.named("tiny-naflex")
    maker.seed = 7
    write_weights(naflex / "model.safetensors", maker.full_model().state_dict())
    assert Checkpoint.open(naflex).weights_digest != before


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


def test_in_the_hub_cache_the_blob_name_is_the_digest(naflex: Path, tmp_path: Path) -> None:
    """Gigabytes that the hub has named by their sha256 are not read again."""
    checkpoint = Checkpoint.open(into_hub_cache(naflex, tmp_path))
    assert checkpoint.weights_digest == "ab" * 32


def test_in_the_hub_cache_name_and_revision_are_the_repository_and_commit(
    naflex: Path, tmp_path: Path
) -> None:
    """A snapshot's folder says which model at which commit it holds."""
    checkpoint = Checkpoint.open(into_hub_cache(naflex, tmp_path))
    assert (checkpoint.name, checkpoint.revision) == ("google/tiny", COMMIT)


def test_a_folder_is_named_after_itself_unless_told_otherwise(naflex: Path) -> None:
    """Name and revision of a plain folder: its own name and the start of its weights digest."""
    checkpoint = Checkpoint.open(naflex)
    assert checkpoint.name == "naflex"
    assert checkpoint.revision == checkpoint.weights_digest[:12]
    told = Checkpoint.open(naflex, name="mine", revision="v2")
    assert (told.name, told.revision) == ("mine", "v2")


def test_the_demo_knows_that_it_is_the_demo(naflex: Path) -> None:
    """The start-up line can say that the small checkpoint is served."""
    demo = Checkpoint.open(DEMO)
    assert demo.is_demo
    assert demo.name == DEMO_NAME
    assert not Checkpoint.open(naflex).is_demo


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "preprocessor_config.json",
    ],
)
def test_a_missing_file_is_named(naflex: Path, name: str) -> None:
    """A folder that lacks a file is refused with that file's name."""
    (naflex / name).unlink()
    assert f"has no {name}" in refusal(naflex)


def test_a_processor_saved_inside_processor_config_is_found(naflex: Path) -> None:
    """transformers 5 may save the image processor inside processor_config.json."""
    before = Checkpoint.open(naflex).preprocessing_digest
    stored = json.loads((naflex / "preprocessor_config.json").read_text())
    (naflex / "preprocessor_config.json").unlink()
    write_json(naflex / "processor_config.json", {"image_processor": stored})
    assert Checkpoint.open(naflex).preprocessing_digest == before


def test_a_processor_config_without_an_image_processor_is_refused(naflex: Path) -> None:
    """A text-only processor_config.json does not describe pixels."""
    (naflex / "preprocessor_config.json").unlink()
    write_json(naflex / "processor_config.json", {"processor_class": "Siglip2Processor"})
    assert "image_processor" in refusal(naflex)


def test_another_model_type_is_refused_by_its_name(naflex: Path) -> None:
    """CLIP is not SigLIP 2, and the refusal says what was found."""
    edit_json(naflex / "config.json", model_type="clip")
    assert "type clip" in refusal(naflex)


def test_siglip_1_is_refused(fixed: Path) -> None:
    """SigLIP 1 shares the model type and has another tokenizer."""
    edit_json(fixed / "tokenizer_config.json", tokenizer_class="SiglipTokenizer")
    assert "SigLIP 1" in refusal(fixed)


@pytest.mark.parametrize("name", ["GemmaTokenizer", "GemmaTokenizerFast", "Siglip2Tokenizer"])
def test_a_fixed_checkpoint_with_gemmas_tokenizer_is_siglip_2(fixed: Path, name: str) -> None:
    """The tokenizer's class tells SigLIP 2 from 1 where the vocabulary is a small test's."""
    edit_json(fixed / "tokenizer_config.json", tokenizer_class=name)
    assert Checkpoint.open(fixed).model_type == "siglip"


@pytest.mark.parametrize(("model", "accepted"), [("BPE", True), ("Unigram", False)])
def test_a_tokenizer_of_no_class_is_told_by_its_model(
    fixed: Path, model: str, accepted: bool
) -> None:
    """Gemma's tokenizer is a BPE and SigLIP 1's a Unigram."""
    edit_json(fixed / "tokenizer_config.json", tokenizer_class=None)
    edit_json(fixed / "tokenizer.json", model={"type": model})
    if accepted:
        assert Checkpoint.open(fixed).model_type == "siglip"
    else:
        assert "SigLIP 1" in refusal(fixed)


def test_gemmas_vocabulary_is_enough_to_be_siglip_2(tmp_path: Path) -> None:
    """256,000 tokens are SigLIP 2 whatever class the tokenizer names."""
    folder = write_true_size(tmp_path / "true", "siglip", {}, {})
    edit_json(folder / "tokenizer_config.json", tokenizer_class="SiglipTokenizer")
    assert Checkpoint.open(folder).vocabulary == 256_000


@pytest.mark.parametrize("content", ["", "{", "[1]", "\ufeff?"])
def test_a_config_that_is_not_a_json_object_is_refused(naflex: Path, content: str) -> None:
    """A damaged config is named, not traced."""
    (naflex / "config.json").write_text(content)
    assert "config.json" in refusal(naflex)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x10",
        struct.pack("<Q", 1 << 60) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 9) + b'{"a": {}}',
        b"version https://git-lfs.github.com/spec/v1\n",
    ],
)
def test_a_weights_file_that_is_not_safetensors_is_refused(naflex: Path, content: bytes) -> None:
    """An empty file, a lying length, a Git LFS pointer: each one line."""
    (naflex / "model.safetensors").write_bytes(content)
    assert "not a readable safetensors file" in refusal(naflex)


def test_a_weights_file_cut_before_the_scalars_is_refused(tmp_path: Path) -> None:
    """A download that stopped is noticed where the scalars should be."""
    folder = write_true_size(tmp_path / "cut", "siglip2", {}, {})
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-2])
    assert "ends before" in refusal(folder)


@pytest.mark.parametrize(
    ("section", "changes", "named"),
    [
        ("text_config", {"vocab_size": 401}, "token_embedding"),
        ("text_config", {"max_position_embeddings": 32}, "position_embedding"),
        ("text_config", {"projection_size": 48}, "dimensions"),
        ("vision_config", {"num_patches": 25}, "position_embedding"),
        ("vision_config", {"hidden_size": 48}, "dimensions"),
        ("vision_config", {"vision_use_head": False}, "pooling head"),
        ("vision_config", {"patch_size": [4, 8]}, "patch_size"),
    ],
)
def test_a_config_that_does_not_describe_its_weights_is_refused(
    naflex: Path, section: str, changes: dict[str, Any], named: str
) -> None:
    """Sizes are compared with the header, before any worker would load gigabytes."""
    config = json.loads((naflex / "config.json").read_text())
    config[section] |= changes
    write_json(naflex / "config.json", config)
    assert named in refusal(naflex)


def test_a_weights_file_without_a_tower_is_refused(naflex: Path) -> None:
    """A folder that holds one tower alone cannot be served."""
    weights = CheckpointMaker.named("tiny-naflex").full_model().state_dict()
    kept = {name: weight for name, weight in weights.items() if "vision" not in name}
    write_weights(naflex / "model.safetensors", kept)
    assert "lack vision_model" in refusal(naflex)


@pytest.mark.parametrize("patches", [0, -1, "many", None, 2.5])
def test_a_senseless_number_of_patches_is_refused(naflex: Path, patches: object) -> None:
    """max_num_patches is a whole number of at least 1; left out, it is 256."""
    edit_json(naflex / "preprocessor_config.json", max_num_patches=patches)
    if patches is None:
        assert Checkpoint.open(naflex).max_num_patches == 256
    else:
        assert "max_num_patches" in refusal(naflex)


def test_no_model_means_the_demo() -> None:
    """The service starts with nothing given, offline."""
    assert fetch("", None) == DEMO


def test_a_folder_is_fetched_as_itself(naflex: Path) -> None:
    """Nothing is copied or downloaded for a folder that is there."""
    assert fetch(str(naflex), None) == naflex


@pytest.mark.parametrize("model", ["/no/such/folder", "./missing", "~/missing-siglip", "a/b/c"])
def test_a_path_that_is_not_there_is_not_asked_of_the_hub(model: str) -> None:
    """A misspelt folder is called a folder, not an unknown model."""
    with pytest.raises(CheckpointError, match="no folder"):
        fetch(model, None)


def fetched(model: str, revision: str | None = None, **environment: str) -> str:
    """What `fetch` gives or refuses, in a process of its own: the hub reads its settings once."""
    code = (
        "import sys\n"
        "from litapi.checkpoint import fetch, CheckpointError\n"
        "try: print(fetch(sys.argv[1], sys.argv[2] or None))\n"
        "except CheckpointError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, model, revision or ""],
        env=os.environ | environment,
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


def test_a_model_in_the_local_hub_cache_is_found_offline(naflex: Path, tmp_path: Path) -> None:
    """What was downloaded once is served without the network."""
    snapshot = into_hub_cache(naflex, tmp_path)
    answer = fetched("google/tiny", HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert answer == str(snapshot)


def test_a_model_not_in_the_cache_is_refused_offline_in_one_line(tmp_path: Path) -> None:
    """Offline and never downloaded: one sentence, no traceback."""
    answer = fetched("google/never", HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert answer == "google/never is not in the local hub cache and the hub cannot be reached."


class Refusing(BaseHTTPRequestHandler):
    """A hub that answers everything with one status and its error code."""

    status, code = 404, "RepoNotFound"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("X-Error-Code", self.code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815 - http.server's naming

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@contextmanager
def hub_answering(status: int, code: str) -> Iterator[str]:
    """The address of a hub on this machine that refuses everything alike."""
    handler = type("Hub", (Refusing,), {"status": status, "code": code})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (404, "RepoNotFound", "The hub has no model google/tiny, or it is private."),
        (404, "RevisionNotFound", "google/tiny has no revision v9."),
        (403, "GatedRepo", "google/tiny is gated: accept its terms on the hub and set HF_TOKEN."),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_line(
    tmp_path: Path, status: int, code: str, sentence: str
) -> None:
    """Unknown, gated, and no such revision are told apart."""
    with hub_answering(status, code) as address:
        answer = fetched("google/tiny", "v9", HF_HOME=str(tmp_path), HF_ENDPOINT=address)
    assert answer == sentence


def test_a_name_the_hub_does_not_allow_is_refused_in_one_line() -> None:
    """Spaces and odd signs never reach the network."""
    with pytest.raises(CheckpointError, match="neither a folder nor a name"):
        fetch("not a name!", None)


def test_reading_a_checkpoint_loads_neither_torch_nor_transformers(naflex: Path) -> None:
    """The HTTP process opens a checkpoint and stays small."""
    code = (
        "import sys\n"
        "from litapi.checkpoint import Checkpoint, fetch\n"
        "Checkpoint.open(fetch(sys.argv[1], None))\n"
        "print(sorted({'torch', 'transformers', 'huggingface_hub', 'numpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(naflex)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_files_that_change_after_they_were_read_are_noticed(tmp_path: Path) -> None:
    """A worker that starts later would keep new vectors under the digests of the old weights."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(DEMO, folder)
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
