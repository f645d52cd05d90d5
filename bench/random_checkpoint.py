"""A checkpoint of a true dimension whose towers are next to nothing: one layer, random weights.

    python -m bench.random_checkpoint FOLDER --dim 1152

What a cache hit costs depends on how many numbers a vector has, not on how they were computed. The
folder is laid out like the hub's NaFlex checkpoints, with the demo's tokenizer, so it passes
`litapi check` and the server takes it for what it is.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DEMO = Path(__file__).parent.parent / "litapi" / "demo" / "checkpoint"
COPIED = ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json")
HEAD = 64  # numbers of an attention head, as in the true sizes
PATCHES = 256


def write(folder: Path, dim: int, seed: int = 0) -> Path:
    """Write the checkpoint into `folder`, which is made; `dim` is a multiple of 64."""
    from transformers import Siglip2Config, Siglip2Model, set_seed

    text, vision = towers(dim)
    set_seed(seed)
    model = Siglip2Model(Siglip2Config(text_config=text, vision_config=vision))
    model.save_pretrained(folder)
    for name in COPIED:
        shutil.copy(DEMO / name, folder / name)
    return folder


def towers(dim: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the text and of the vision tower."""
    if dim <= 0 or dim % HEAD:
        raise ValueError(f"the dimension must be a multiple of {HEAD}")
    demo = json.loads((DEMO / "config.json").read_text())["text_config"]
    both = {
        "hidden_size": dim,
        "intermediate_size": HEAD,
        "num_attention_heads": dim // HEAD,
        "num_hidden_layers": 1,
    }
    tokens = ("vocab_size", "pad_token_id", "eos_token_id", "bos_token_id")
    text = both | {name: demo[name] for name in tokens} | {"projection_size": dim}
    return text, both | {"patch_size": 16, "num_patches": PATCHES}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser("python -m bench.random_checkpoint", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dim", type=int, default=1152)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    print(write(options.folder, options.dim, options.seed))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
