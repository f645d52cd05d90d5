"""Checkpoints of random weights: what is asked for is what is written."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel

from bench.rig.random_checkpoint import SIZES, Size, thin, write_hub, write_size
from litapi.checkpoint import Checkpoint
from litapi.model.check import check

SMALL: dict[str, Any] = {"width": 64, "layers": 1, "heads": 1, "mlp": 64, "vocabulary": 1000}


def test_a_seed_gives_the_same_weights(tmp_path: Path) -> None:
    """And another seed gives others."""
    digests = [
        Checkpoint.open(write_size(tmp_path / name, 64, seed)).weights_digest
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_in_the_hubs_layout_the_weights_are_named_after_their_digest(tmp_path: Path) -> None:
    """So that no process of a server reads gigabytes for it; the name is the hub's as well."""
    size = Size("siglip2", **SMALL)
    folder = write_hub(tmp_path, "someone/random", size, "bfloat16", "cpu")
    digest = sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.weights_digest == digest == (folder / "model.safetensors").resolve().name
    assert (checkpoint.name, checkpoint.revision) == ("someone/random", digest[:40])
    assert AutoModel.from_pretrained(folder).dtype == torch.bfloat16


@pytest.mark.parametrize("name", SIZES)
def test_every_kind_of_size_passes_the_check_too(tmp_path: Path, name: str) -> None:
    """Its own patches and its own image, made thin so that it is written in a moment."""
    size = replace(SIZES[name], **SMALL)
    checkpoint = Checkpoint.open(write_size(tmp_path / name, size))
    assert checkpoint.naflex == name.endswith("naflex")
    assert checkpoint.patch_size == size.patch
    assert checkpoint.image_size == (256 if size.naflex else size.image)
    assert checkpoint.vocabulary == 1000
    assert [finding for finding in check(checkpoint) if not finding.passed] == []


@pytest.mark.parametrize(
    ("name", "text", "vision"),
    [("base-patch16-224", 282.3, 92.9), ("so400m-patch16-naflex", 707.8, 427.9)],
)
def test_the_true_sizes_have_the_hubs_numbers_of_weights(
    name: str, text: float, vision: float
) -> None:
    """In millions, as the published checkpoints have them; counted without making any."""
    from transformers import (
        Siglip2Config,
        Siglip2TextModel,
        Siglip2VisionModel,
        SiglipConfig,
        SiglipTextModel,
        SiglipVisionModel,
    )

    first, second = SIZES[name].towers()
    naflex = SIZES[name].naflex
    config = (Siglip2Config if naflex else SiglipConfig)(text_config=first, vision_config=second)
    with torch.device("meta"):
        texts = (Siglip2TextModel if naflex else SiglipTextModel)(config.text_config)
        images = (Siglip2VisionModel if naflex else SiglipVisionModel)(config.vision_config)
    assert sum(w.numel() for w in texts.parameters()) / 1e6 == pytest.approx(text, abs=0.05)
    assert sum(w.numel() for w in images.parameters()) / 1e6 == pytest.approx(vision, abs=0.05)


@pytest.mark.parametrize("dim", [0, -64, 100])
def test_a_dimension_that_heads_cannot_share_is_refused(dim: int) -> None:
    """Before anything is written."""
    with pytest.raises(ValueError, match="multiple of 64"):
        thin(dim)
