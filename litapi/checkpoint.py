"""What a SigLIP 2 checkpoint says about itself, read without torch and without transformers.

The HTTP process and the command line need a checkpoint's dimension, logit scale, digests and cost
before any worker exists, so this file reads `config.json`, `preprocessor_config.json` and the
header of the safetensors file. Values that the hub's configs leave out get the defaults of
transformers 5, and the config is compared with the shapes in the header. The header is parsed here:
huggingface_hub's parser costs half a second of imports, and does not say where a tensor starts.

Two model types carry SigLIP 2: `siglip2` (NaFlex) and `siglip` (fixed resolution), which SigLIP 1
shares. A `siglip` checkpoint is SigLIP 2 when its vocabulary is Gemma's 256,000, or when its
tokenizer names a Gemma or SigLIP 2 class, or, naming none, is a BPE; SigLIP 1's is a Unigram.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from litapi.digests import Digests

if TYPE_CHECKING:
    from litapi.messages import Kind

DEMO = Path(__file__).parent / "demo" / "checkpoint"
DEMO_NAME = "siglit-demo"
GEMMA_VOCABULARY = 256_000
MODEL_TYPES = ("siglip", "siglip2")

# Raised whenever picture or pixels (images), canonical or tokens (texts) make something else of the
# same input, so that vectors cached under the old digest are never served again.
PREPROCESSING_VERSION = 1
TOKENIZING_VERSION = 1

SPACE_KEY = b"siglit.space"  # of the space in the metadata of a Parquet file

DOWNLOADED = ["*.json", "*.safetensors", "tokenizer.model", "spiece.model"]
GEMMA_CLASSES = ("GemmaTokenizer", "GemmaTokenizerFast", "Siglip2Tokenizer")
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip

# The defaults of transformers' Siglip(2)TextConfig, VisionConfig and image processors.
TOWER_DEFAULTS = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12,
}  # fmt: skip
TEXT_DEFAULTS = TOWER_DEFAULTS | {"vocab_size": 32000, "max_position_embeddings": 64}
VISION_DEFAULTS = TOWER_DEFAULTS | {"patch_size": 16, "image_size": 224, "num_patches": 256}
PROCESSOR_DEFAULTS: dict[str, dict[str, Any]] = {
    "siglip": {"resample": 3, "size": {"height": 224, "width": 224}},
    "siglip2": {"resample": 2, "patch_size": 16, "max_num_patches": 256},
}
SHARED_PROCESSOR_DEFAULTS: dict[str, Any] = {
    "do_resize": True, "do_rescale": True, "do_normalize": True, "do_center_crop": None,
    "do_pad": None, "image_processor_type": None, "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5], "rescale_factor": 1 / 255,
}  # fmt: skip

_digests = operator.attrgetter(
    "weights_digest", "config_digest", "tokenizer_digest", "preprocessing_digest"
)


class CheckpointError(Exception):
    """A checkpoint that cannot be served. Its text is one public line, shown at start-up."""


def fetch(model: str, revision: str | None) -> Path:
    """The folder of `model`: "" is the demo, a folder is itself, anything else is the hub's.

    Downloads (with huggingface_hub's progress bar) only what the service reads, and what is in
    the local hub cache already is not downloaded again, so a warm cache also serves offline.
    Raises CheckpointError in one line when there is no such folder or repository.
    """
    if not model:
        return DEMO
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise CheckpointError(f"There is no folder {model}.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=DOWNLOADED))
    except Exception as error:
        raise CheckpointError(_why_not(model, revision, error)) from error


def _why_not(model: str, revision: str | None, error: Exception) -> str:
    from huggingface_hub import errors

    match error:
        case errors.GatedRepoError():  # which is a RepositoryNotFoundError, too
            return f"{model} is gated: accept its terms on the hub and set HF_TOKEN."
        case errors.RevisionNotFoundError():
            return f"{model} has no revision {revision}."
        case errors.RepositoryNotFoundError():
            return f"The hub has no model {model}, or it is private."
        case errors.HFValidationError():
            return f"{model} is neither a folder nor a name the hub allows."
        case errors.LocalEntryNotFoundError():
            return f"{model} is not in the local hub cache and the hub cannot be reached."
    return f"{model} could not be downloaded from the hub ({type(error).__name__})."


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What must be known of a checkpoint without loading it.

    `logit_scale` is already exp'd: probability = sigmoid(logit_scale · cosine + logit_bias).
    `image_size` and `patch_size` are pixels; for NaFlex `image_size` is the square that holds
    `max_num_patches`. `text_gflop` and `image_gflop` are the work for one item at the defaults,
    counting a multiply and an add as two. The digests are sha256, in hex. `space` is 16 digits of
    one, the same for all vectors that may be compared: nothing of precision, engine, device or
    number of patches is in it. `stamp` is name, bytes and time of change of every file.
    """

    folder: Path
    name: str
    revision: str
    model_type: str
    dim: int
    logit_scale: float
    logit_bias: float
    weights_digest: str
    config_digest: str
    tokenizer_digest: str
    preprocessing_digest: str
    space: str
    image_size: int
    patch_size: int
    max_num_patches: int
    text_length: int
    vocabulary: int
    text_gflop: float
    image_gflop: float
    stamp: tuple[tuple[str, int, int], ...]

    def is_like(self, other: Checkpoint) -> bool:
        return _digests(self) == _digests(other)

    @property
    def is_unchanged(self) -> bool:
        return _stamp(self.folder) == self.stamp

    def require_unchanged(self) -> None:
        """Another process loads the weights later, and keeps its vectors under these digests.
        Raises CheckpointError where the files say something else by now."""
        if not self.is_unchanged and not self.is_like(Checkpoint.open(self.folder)):
            raise CheckpointError(
                f"The files of {self.name} were changed after the service had read them; "
                "start it anew."
            )

    def gflop(self, kind: Kind) -> float:
        """The work for one item of a tower."""
        return self.text_gflop if kind == "text" else self.image_gflop

    @property
    def naflex(self) -> bool:
        """Whether images keep their aspect ratio."""
        return self.model_type == "siglip2"

    @property
    def is_demo(self) -> bool:
        """Whether this is the small checkpoint that ships with the service."""
        return self.folder.resolve() == DEMO.resolve()

    @property
    def preprocessing(self) -> dict[str, Any]:
        """The image processor's settings, with the defaults of its class filled in."""
        return _preprocessing(self.folder, self.model_type)

    @property
    def null_settings(self) -> list[str]:
        """What the image processor's file says null for, where that is no value of the option."""
        wanted = SHARED_PROCESSOR_DEFAULTS | PROCESSOR_DEFAULTS[self.model_type]
        stored = wanted | _stored_processor(self.folder)
        return [name for name in wanted if stored[name] is None and wanted[name] is not None]

    @classmethod
    def named(cls, model: str, revision: str | None = None, kept: Path | None = None) -> Self:
        """What `model` means (see `fetch`), under the name that the service gives it. Raises
        CheckpointError."""
        folder = fetch(model, revision)
        by_name = model and not Path(model).is_dir()  # a folder's path stays private
        return cls.open(folder, model if by_name else None, revision, kept)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        name: str | None = None,
        revision: str | None = None,
        kept: Path | None = None,
    ) -> Self:
        """Read the checkpoint in `folder`.

        `name` and `revision` default to those of the hub cache the folder lies in, else to the
        folder's name and the start of the weights digest. `kept` is the folder where digests of
        large files are remembered. Raises CheckpointError in one line when a file is missing or
        damaged, or when this is not SigLIP 2.
        """
        try:
            return cls._open(Path(folder), name, revision, Digests(kept))
        except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
            # a file of JSON may hold anything where a number or a section is expected
            raise CheckpointError(
                f"{folder}: a field of its JSON files is of the wrong kind ({error})."
            ) from error

    @classmethod
    def _open(cls, folder: Path, name: str | None, revision: str | None, digests: Digests) -> Self:
        stamp = _stamp(folder)
        config = _read_json(folder / "config.json")
        _require_files(folder)
        model_type = _model_type(folder, config)
        text = TEXT_DEFAULTS | _section(config, "text_config")
        vision = VISION_DEFAULTS | _section(config, "vision_config")
        weights = _Weights(folder)
        processor = _preprocessing(folder, model_type)
        patch, patches, side = _geometry(folder, model_type, vision, processor)
        positions = vision["num_patches"] if model_type == "siglip2" else patches
        _compare(folder, text, vision, positions, weights)
        hub_name, hub_revision = _hub_identity(folder)
        # Heads, layers, activation: the same weights under another config are another model.
        config_digest = _sha256(json.dumps(config, sort_keys=True))
        digest = weights.digest(digests)
        tokenizer_digest = _tokenizer_digest(folder, digests)
        return cls(
            folder=folder,
            name=name or hub_name,
            revision=revision or hub_revision or digest[:12],
            model_type=model_type,
            dim=int(vision["hidden_size"]),
            logit_scale=math.exp(weights.scalar("logit_scale")),
            logit_bias=weights.scalar("logit_bias"),
            weights_digest=digest,
            config_digest=config_digest,
            tokenizer_digest=tokenizer_digest,
            preprocessing_digest=_preprocessing_digest(processor, model_type),
            space=_space(digest, config_digest, tokenizer_digest, processor, model_type),
            image_size=side,
            patch_size=patch,
            max_num_patches=patches,
            text_length=int(text["max_position_embeddings"]),
            vocabulary=int(text["vocab_size"]),
            text_gflop=_text_gflop(text),
            image_gflop=_image_gflop(vision, patch, patches),
            stamp=stamp,
        )


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    files = [*folder.glob("*.safetensors"), *folder.glob("*.json")]
    facts = [(file.name, file.stat()) for file in sorted(files) if file.is_file()]
    return tuple((name, fact.st_size, fact.st_mtime_ns) for name, fact in facts)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} has no {path.name}.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} does not hold a JSON object.")
    return value


def _require_files(folder: Path) -> None:
    """Name the first file that is missing, before anything is read that takes time."""
    wanted: list[tuple[str, ...]] = [
        ("model.safetensors", "model.safetensors.index.json"),
        ("tokenizer.json",),
        ("tokenizer_config.json",),
        ("preprocessor_config.json", "processor_config.json"),
    ]
    for names in wanted:
        if not any((folder / name).is_file() for name in names):
            raise CheckpointError(f"{folder} has no {names[0]}.")


def _section(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in (config.get(key) or {}).items() if value is not None}


def _model_type(folder: Path, config: Mapping[str, Any]) -> str:
    """The model type, refused when it is not SigLIP 2's (the rule is in this file's docstring)."""
    model_type = str(config.get("model_type"))
    if model_type not in MODEL_TYPES:
        raise CheckpointError(
            f"{folder} holds a model of type {model_type}; only SigLIP 2 is served."
        )
    if model_type == "siglip" and not _is_second(folder, config):
        raise CheckpointError(f"{folder} holds a SigLIP 1 checkpoint; only SigLIP 2 is served.")
    return model_type


def _is_second(folder: Path, config: Mapping[str, Any]) -> bool:
    if _section(config, "text_config").get("vocab_size") == GEMMA_VOCABULARY:
        return True
    named = _read_json(folder / "tokenizer_config.json").get("tokenizer_class")
    if named:
        return named in GEMMA_CLASSES
    model = _read_json(folder / "tokenizer.json").get("model") or {}
    return bool(model.get("type") == "BPE")


@dataclass(frozen=True, slots=True)
class _Tensor:
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int


class _Weights:
    """The headers of a checkpoint's safetensors files, one or many; no weight is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, _weight_files(folder)
        self.tensors: dict[str, _Tensor] = {}
        for file in self.files:
            self.tensors |= _header(file)

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self.tensors:
            raise CheckpointError(f"The weights in {self.folder} lack {name}.")
        return self.tensors[name].shape

    def scalar(self, name: str) -> float:
        """One stored number, whatever its precision."""
        if math.prod(self.shape(name)) != 1:
            raise CheckpointError(f"{name} in {self.folder} is not one number.")
        tensor = self.tensors[name]
        with tensor.file.open("rb") as stream:
            stream.seek(tensor.start)
            return _number(stream.read(4), tensor.dtype, name)

    def digest(self, digests: Digests) -> str:
        """The sha256 of the file, or over the names and digests of the shards."""
        if len(self.files) == 1:
            return digests.of(self.files[0])
        return _sha256("".join(f"{file.name}:{digests.of(file)}\n" for file in self.files))


def _weight_files(folder: Path) -> tuple[Path, ...]:
    single = folder / "model.safetensors"
    if single.is_file():
        return (single,)
    shards = _read_json(folder / "model.safetensors.index.json").get("weight_map") or {}
    files = tuple(folder / name for name in sorted(set(shards.values())))
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{folder} has no {file.name}.")
    return files


def _header(file: Path) -> dict[str, _Tensor]:
    """The safetensors header: 8 bytes of little-endian length, then JSON; offsets follow it."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > file.stat().st_size:
                raise ValueError("the header is longer than the file")
            entries = json.loads(stream.read(length))
        entries.pop("__metadata__", None)
        return {
            name: _Tensor(
                file, entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0]
            )
            for name, entry in entries.items()
        }
    except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file} is not a readable safetensors file.") from error


def _number(raw: bytes, dtype: str, name: str) -> float:
    stored = {"F32": ("<f", raw), "F16": ("<e", raw[:2]), "BF16": ("<f", b"\0\0" + raw[:2])}
    if dtype not in stored:  # BF16 is the upper half of a float32
        raise CheckpointError(f"{name} is stored as {dtype}; F32, F16 and BF16 are read.")
    try:
        return float(struct.unpack(*stored[dtype])[0])
    except struct.error as error:
        raise CheckpointError(f"The weights file ends before {name}.") from error


def _tokenizer_digest(folder: Path, digests: Digests) -> str:
    files = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    lines = [f"{file.name}:{digests.of(file)}\n" for file in files]
    return _sha256("".join([f"tokenizing {TOKENIZING_VERSION}\n", *lines]))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _preprocessing_digest(processor: Mapping[str, Any], model_type: str) -> str:
    fields = {name: processor[name] for name in processor if name != "image_processor_type"}
    return _sha256(json.dumps([PREPROCESSING_VERSION, model_type, fields], sort_keys=True))


def _space(
    weights: str, config: str, tokenizer: str, processor: Mapping[str, Any], model_type: str
) -> str:
    """The patches of an image are left out: each request may ask for as many as it likes."""
    pixels = _preprocessing_digest({**processor, "max_num_patches": None}, model_type)
    return _sha256(f"{weights}:{config}:{tokenizer}:{pixels}")[:16]


def _preprocessing(folder: Path, model_type: str) -> dict[str, Any]:
    """The settings that change pixels, from either of the two files a processor is saved in."""
    defaults = SHARED_PROCESSOR_DEFAULTS | PROCESSOR_DEFAULTS[model_type]
    stored = _stored_processor(folder)
    wanted = {*defaults, "size"}
    return defaults | {
        name: value for name, value in stored.items() if name in wanted and value is not None
    }


def _stored_processor(folder: Path) -> dict[str, Any]:
    if (folder / "preprocessor_config.json").is_file():
        return _read_json(folder / "preprocessor_config.json")
    whole = _read_json(folder / "processor_config.json")
    nested = whole.get("image_processor")
    if not isinstance(nested, dict):
        raise CheckpointError(f"{folder}/processor_config.json has no image_processor.")
    return nested


def _geometry(
    folder: Path, model_type: str, vision: Mapping[str, Any], processor: Mapping[str, Any]
) -> tuple[int, int, int]:
    """Patch size, patches of an image at most, and the side of the image, in pixels."""
    patch = _side(folder, vision["patch_size"], "patch_size")
    if model_type == "siglip":
        side = _side(folder, vision["image_size"], "image_size")
        return patch, (side // patch) ** 2, side
    patches = processor["max_num_patches"]
    if not isinstance(patches, int) or patches < 1:
        raise CheckpointError(f"{folder} has a max_num_patches of {patches!r}.")
    return patch, patches, math.isqrt(patches) * patch


def _side(folder: Path, value: object, what: str) -> int:
    sides = value if isinstance(value, list) else [value]
    first = sides[0] if sides else None
    if not isinstance(first, int) or first < 1 or any(side != first for side in sides):
        raise CheckpointError(f"{folder} has a {what} of {value!r}; only squares are served.")
    return first


def _compare(
    folder: Path,
    text: Mapping[str, Any],
    vision: Mapping[str, Any],
    positions: int,
    weights: _Weights,
) -> None:
    """Refuse a config that does not describe its weights, or towers that do not meet."""
    projection = text.get("projection_size", text["hidden_size"])
    if projection != vision["hidden_size"]:
        raise CheckpointError(
            f"{folder} has texts of {projection} and images of {vision['hidden_size']} dimensions."
        )
    if vision.get("vision_use_head") is False:
        raise CheckpointError(f"{folder} has no pooling head, so it gives no image vectors.")
    text_length = text["max_position_embeddings"]
    expected = {
        "text_model.embeddings.token_embedding.weight": (text["vocab_size"], text["hidden_size"]),
        "text_model.embeddings.position_embedding.weight": (text_length, text["hidden_size"]),
        "text_model.head.weight": (projection, text["hidden_size"]),
        "vision_model.embeddings.position_embedding.weight": (positions, vision["hidden_size"]),
    }
    for name, shape in expected.items():
        if weights.shape(name) != shape:
            raise CheckpointError(
                f"{folder}: {name} is {weights.shape(name)} in the weights, {shape} in config.json."
            )


def _hub_identity(folder: Path) -> tuple[str, str | None]:
    """Name and commit of a folder that lies in the hub's cache, else its own name and None."""
    repository = folder.parent.parent.name
    if folder.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/"), folder.name
    if folder.resolve() == DEMO.resolve():
        return DEMO_NAME, None
    return folder.resolve().name, None


def _encoder_flop(tower: Mapping[str, Any], tokens: int) -> int:
    """Work of the transformer layers: the projections and MLP of each token, and attention."""
    width, mlp = int(tower["hidden_size"]), int(tower["intermediate_size"])
    layer = tokens * (8 * width**2 + 4 * width * mlp) + 4 * tokens**2 * width
    return int(tower["num_hidden_layers"]) * layer


def _text_gflop(text: Mapping[str, Any]) -> float:
    width = int(text["hidden_size"])
    head = 2 * width * int(text.get("projection_size", width))
    return (_encoder_flop(text, int(text["max_position_embeddings"])) + head) / 1e9


def _image_gflop(vision: Mapping[str, Any], patch: int, patches: int) -> float:
    width, mlp = int(vision["hidden_size"]), int(vision["intermediate_size"])
    embedding = 2 * patches * 3 * patch**2 * width
    head = 4 * patches * width**2 + 4 * width**2 + 4 * width * mlp + 4 * patches * width
    return (_encoder_flop(vision, patches) + embedding + head) / 1e9
