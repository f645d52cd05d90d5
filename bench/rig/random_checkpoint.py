"""Checkpoints of random weights, laid out like the hub's: of a true dimension, or of a true size.

    python -m bench.rig.random_checkpoint FOLDER --dim 1152                 # one thin layer
    python -m bench.rig.random_checkpoint FOLDER --size base-patch16-224    # every layer, 1.5 GB

What a cache hit costs depends on how many numbers a vector has, not on how they were computed;
what a vector costs depends on the shapes of the weights, not on their values. The folder has the
demo's tokenizer, so it passes `litapi check` and the server takes it for what it is.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.rig.command import described
from bench.rig.server_process import ROOT

DEMO = ROOT / "litapi" / "demo" / "checkpoint"
COPIED = ("tokenizer.json", "tokenizer_config.json")
HEAD = 64  # numbers of an attention head, as in the base sizes
GEMMA = 256_000
NAMED = {"base": "base-patch16-224", "so400m": "so400m-patch16-naflex"}
RANDOM = ROOT / "build" / "checkpoints"  # made once: 1.5 GB of base, 4.5 GB of so400m


@dataclass(frozen=True, slots=True)
class Size:
    """The sizes of a checkpoint; equal for both towers but for what its names say.

    `model_type` is "siglip2" (NaFlex; `positions` are patches) or "siglip" (`image` is pixels).
    """

    model_type: str
    width: int
    layers: int
    heads: int
    mlp: int
    vocabulary: int = GEMMA
    patch: int = 16
    image: int = 224
    positions: int = 256

    @property
    def naflex(self) -> bool:
        return self.model_type == "siglip2"

    def towers(self) -> tuple[dict[str, Any], dict[str, Any]]:
        both = {
            "hidden_size": self.width,
            "intermediate_size": self.mlp,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
        }
        text = both | {"vocab_size": self.vocabulary, "projection_size": self.width}
        text |= {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
        grid = {"num_patches": self.positions} if self.naflex else {"image_size": self.image}
        return text, both | {"patch_size": self.patch} | grid

    def preprocessor(self) -> dict[str, Any]:
        """preprocessor_config.json, as the hub's repositories of this type have it."""
        shared = {
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "resample": 2,
            "rescale_factor": 0.00392156862745098,
        }
        if not self.naflex:
            side = {"height": self.image, "width": self.image}
            return shared | {"image_processor_type": "SiglipImageProcessor", "size": side}
        return shared | {
            "image_processor_type": "Siglip2ImageProcessor",
            "max_num_patches": self.positions,
            "patch_size": self.patch,
        }


SIZES = {
    "base-patch16-224": Size("siglip", 768, 12, 12, 3072),
    "base-patch16-naflex": Size("siglip2", 768, 12, 12, 3072),
    "large-patch16-256": Size("siglip", 1024, 24, 16, 4096, image=256),
    "so400m-patch14-384": Size("siglip", 1152, 27, 16, 4304, patch=14, image=384),
    "so400m-patch16-naflex": Size("siglip2", 1152, 27, 16, 4304),
}


def write_hub(cache: Path, name: str, size: Size, dtype: str, device: str) -> Path:
    """Write one as the hub's cache holds it; the snapshot's folder.

    The weights are a file named after its digest, so no process that opens it reads 2 GB for that.
    """
    home = cache / f"models--{name.replace('/', '--')}"
    made = write_size(home / "made", size, dtype=dtype, device=device)
    weights = made / "model.safetensors"
    with weights.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    blob = home / "blobs" / digest
    blob.parent.mkdir()
    weights.rename(blob)
    weights.symlink_to(Path("../../blobs", digest))
    snapshot = home / "snapshots" / digest[:40]
    snapshot.parent.mkdir()
    return made.rename(snapshot)


def write_size(
    folder: Path, size: str | int | Size, seed: int = 0, dtype: str = "float32", device: str = "cpu"
) -> Path:
    """Write a checkpoint of that size, of the one of SIZES called so, or a thin one of a dimension.

    The folder is made. The weights are drawn on `device`; there the same seed gives the same.
    """
    import torch
    from transformers import Siglip2Config, Siglip2Model, SiglipConfig, SiglipModel, set_seed
    from transformers.utils import logging

    logging.disable_progress_bar()
    if not isinstance(size, Size):
        size = SIZES[size] if isinstance(size, str) else thin(size)
    text, vision = size.towers()
    set_seed(seed)
    config, kind = (Siglip2Config, Siglip2Model) if size.naflex else (SiglipConfig, SiglipModel)
    with torch.device(device):
        model: Any = kind(config(text_config=text, vision_config=vision))
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size="100GB")
    for name in COPIED:
        shutil.copy(DEMO / name, folder / name)
    (folder / "preprocessor_config.json").write_text(json.dumps(size.preprocessor(), indent=1))
    return folder


def thin(dim: int) -> Size:
    """The size of one layer that is next to nothing; `dim` is a multiple of 64."""
    if dim <= 0 or dim % HEAD:
        raise ValueError(f"the dimension must be a multiple of {HEAD}")
    demo = json.loads((DEMO / "config.json").read_text())["text_config"]
    return Size("siglip2", dim, 1, dim // HEAD, HEAD, vocabulary=demo["vocab_size"])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = described("bench.rig.random_checkpoint", __doc__)
    parser.add_argument("folder", type=Path)
    wanted = parser.add_mutually_exclusive_group()
    wanted.add_argument("--dim", type=int, default=1152)
    wanted.add_argument("--size", choices=SIZES)
    options = parser.parse_args(arguments)
    print(write_size(options.folder, options.size or options.dim))
    return 0


def checkpoint(name: str) -> Path:
    """The folder of `demo`, of a size (random weights, made where they are missing), or itself."""
    if name not in NAMED:
        return DEMO if name == "demo" else Path(name)
    size = NAMED[name]
    folder = RANDOM / size
    if not folder.exists():
        RANDOM.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=RANDOM) as home:
            made = Path(home) / size
            make = [sys.executable, "-m", "bench.rig.random_checkpoint"]
            command = [*make, str(made), "--size", size]
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            shutil.move(made, folder)
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
